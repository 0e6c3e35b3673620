//! Prints what the network namespace that it runs in holds, a thing a line: links, addresses, routes, rules, the packet filter, settings.
//!
//! `integration/test` has it do so before and after all tests, and fails on a difference. Changes nothing; the packet filter is shown to root alone.
#![forbid(unsafe_code)]

use kakoi_integration::network;

fn main() {
    for line in network::picture().iter().chain(&network::settings()) {
        println!("{line}");
    }
}
