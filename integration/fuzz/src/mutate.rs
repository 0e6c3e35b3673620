//! Mutations drawn from a seed: fuzzing in small, on any toolchain, the same again by the same seed.
//!
//! Owns [`cases`]. `KAKOI_FUZZ_SEED=N` runs a seed again, `KAKOI_FUZZ_CASES=N` says how many cases are made.

/// Values at which lengths, counts and signs turn over.
const EDGES: [u8; 8] = [0, 1, 0x7f, 0x80, 0xff, b'0', b'/', b'\n'];
/// Most mutations of one case: more leave nothing of what was valid.
const MUTATIONS_MAX: u64 = 6;
/// Largest piece that is copied, cut or repeated.
const PIECE_BYTES_MAX: u64 = 700;

/// Numbers from a seed: splitmix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }

    fn piece<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let from = self.below(bytes.len());
        let length = self.below(PIECE_BYTES_MAX as usize).min(bytes.len() - from);
        &bytes[from..from + length]
    }
}

/// Gives a target its seeds as they are, and then as many mutations of them; tells how many of the seeds it took.
pub fn cases(seeds: &[Vec<u8>], count: usize, mut target: impl FnMut(&[u8]) -> bool) -> usize {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seed = number("KAKOI_FUZZ_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    let count = number("KAKOI_FUZZ_CASES").map_or(count, |count| count as usize);
    println!("KAKOI_FUZZ_SEED={seed} KAKOI_FUZZ_CASES={count}");
    let taken = seeds.iter().filter(|seed| target(seed)).count();
    let mut random = Random(seed);
    for _ in 0..count {
        let mut bytes = seeds[random.below(seeds.len())].clone();
        for _ in 0..=random.below(MUTATIONS_MAX as usize) {
            mutate(&mut bytes, seeds, &mut random);
        }
        target(&bytes);
    }
    taken
}

fn mutate(bytes: &mut Vec<u8>, seeds: &[Vec<u8>], random: &mut Random) {
    let at = random.below(bytes.len());
    match random.below(8) {
        0 if !bytes.is_empty() => bytes[at] ^= 1 << random.below(8),
        1 if !bytes.is_empty() => bytes[at] = EDGES[random.below(EDGES.len())],
        2 => bytes.insert(at, random.next() as u8),
        3 => {
            let until = at + random.below(PIECE_BYTES_MAX as usize).min(bytes.len() - at);
            drop(bytes.drain(at..until));
        }
        4 => {
            let piece = random.piece(bytes).to_vec();
            drop(bytes.splice(at..at, piece));
        }
        5 => {
            let other = random.below(seeds.len());
            let piece = random.piece(&seeds[other]).to_vec();
            let until = (at + piece.len()).min(bytes.len());
            drop(bytes.splice(at..until, piece));
        }
        6 => bytes.truncate(at),
        // A whole block, which is what a tar is made of.
        _ => {
            let from = at / 512 * 512;
            let until = (from + 512).min(bytes.len());
            let block = bytes[from..until].to_vec();
            let to = (random.below(bytes.len()) / 512 * 512).min(bytes.len());
            drop(bytes.splice(to..to, block));
        }
    }
}
