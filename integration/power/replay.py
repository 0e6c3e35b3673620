"""Cuts a log of writes at many points, and has kakoid look at what each cut leaves.

Usage: replay.py WORK BINARIES CUTS SEED, in a mount namespace of its own. The log's format is dm-log-writes': a super sector, then for each write a
sector that describes it and its data. A flush covers every write before it; a write with FUA is on the disk when it ends.
"""

import os
import random
import re
import shutil
import struct
import subprocess
import sys
import time

MAGIC = 0x6A736677736872
FLUSH, FUA, DISCARD = 1, 2, 4
SECTOR = 512
MARK = re.compile(rb"KAKOI-MARK (\d{8})\n")


def read_log(path):
    """Every write: offset, data (None for a discard), flags."""
    entries = []
    with open(path, "rb") as log:
        magic, _version, count, sector = struct.unpack("<QQQI", log.read(28))
        assert magic == MAGIC, "no log of writes"
        log.seek(sector)
        for _ in range(count):
            head = log.read(sector)
            at, sectors, flags, _length = struct.unpack("<QQQQ", head[:32])
            data = None if flags & DISCARD else log.read(sectors * sector)
            entries.append((at * sector, data, flags, sectors * sector))
    return entries


def write(image, entry, kept=None):
    offset, data, _flags, length = entry
    if data is None:
        data = bytes(length)
    if not data:
        return
    if kept is None:
        image.seek(offset)
        image.write(data)
        return
    for first in kept:
        image.seek(offset + first)
        image.write(data[first : first + SECTOR])


def cut(pristine, target, entries, at, choose):
    """The disk after a cut before write `at`: all up to the last flush, and of the rest what the disk liked."""
    shutil.copyfile(pristine, target)
    with open(target, "r+b") as image:
        for number in range(at["flushed"], at["cut"]):
            entry = entries[number]
            data = entry[1]
            fate = choose.random()
            if entry[2] & FUA or fate < 0.5:
                write(image, entry)
            elif fate < 0.7 and data:
                sectors = range(0, len(data), SECTOR)
                write(image, entry, [first for first in sectors if choose.random() < 0.5])


def until(test, what):
    limit = time.monotonic() + 60
    while not test():
        assert time.monotonic() < limit, what
        time.sleep(0.02)


def look(work, binaries, allowed):
    """Mounts the cut disk, starts a daemon on it, and compares."""
    mounted, run = f"{work}/mnt", f"{work}/run"
    shutil.rmtree(run, ignore_errors=True)
    os.makedirs(mounted, exist_ok=True)
    os.makedirs(run)
    subprocess.run(["mount", "-o", "loop", f"{work}/cut", mounted], check=True)
    flags = [f"--root={mounted}", f"--run={run}", f"--config={work}/tree/config"]
    with open(f"{work}/daemon.log", "wb") as log:
        daemon = subprocess.Popen([f"{binaries}/kakoid", *flags], stdout=log, stderr=log)
    try:
        socket = f"{run}/kakoid.sock"
        until(lambda: os.path.exists(socket) or daemon.poll() is not None, "the daemon listens")
        assert daemon.poll() is None, "the store does not open by itself: " + open(f"{work}/daemon.log").read()
        environment = dict(os.environ, KAKOI_HOST=f"unix://{socket}")

        def kakoi(*words):
            ran = subprocess.run([f"{binaries}/kakoi", *words], env=environment, capture_output=True, text=True, timeout=120)
            assert ran.returncode == 0, f"{words}: {ran.returncode}\n{ran.stdout}{ran.stderr}"
            return ran.stdout

        listed = kakoi("images", "--all", "--no-trunc", "--format", "{{.ID}}={{.Repository}}:{{.Tag}}")
        state = sorted(listed.split())
        assert state in allowed, f"{state} is none of {allowed}"
        kakoi("system", "check", "--hash")
        kakoi("load", "--quiet", "--input", f"{work}/tree/images/app1.tar")
        kakoi("system", "check", "--hash")
    finally:
        if daemon.poll() is None:
            daemon.terminate()
        try:
            daemon.wait(60)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()
        subprocess.run(["umount", mounted], check=True)


def main():
    work, binaries, cuts, seed = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    choose = random.Random(seed)
    entries = read_log(f"{work}/log")
    states = {0: []}
    with open(f"{work}/console", encoding="utf-8", errors="replace") as console:
        for line in console:
            assert not line.startswith("FAILED"), line
            found = re.search(r"STATE (\d+)(.*)", line)
            if found:
                states[int(found.group(1))] = sorted(found.group(2).split())
    marks = []
    for number, (_, data, _, _) in enumerate(entries):
        found = data and MARK.match(data)
        if found:
            marks.append((number, int(found.group(1))))
    assert marks and marks[-1][1] == max(states), "every acknowledgement has a mark in the log"
    print(f"{len(entries)} writes, {len(marks)} marks; {cuts} cuts, seed {seed}", flush=True)
    points = sorted(choose.randrange(marks[0][0] + 1, len(entries) + 1) for _ in range(cuts))
    # What a flush covers is on the disk: it is written once, into the image that all later cuts begin with.
    base, done = f"{work}/base", 0
    shutil.copyfile(f"{work}/pristine", base)
    for count, point in enumerate(points, 1):
        flushed = done
        for number in range(done, point):
            if entries[number][2] & FLUSH:
                flushed = number
        with open(base, "r+b") as image:
            for number in range(done, flushed):
                write(image, entries[number])
        done = flushed
        cut(base, f"{work}/cut", entries, {"flushed": flushed, "cut": point}, choose)
        last = max(mark for number, mark in marks if number < point)
        allowed = [states[last], states.get(last + 1, states[last])]
        try:
            look(work, binaries, allowed)
        except AssertionError as error:
            print(f"cut {count} before write {point} (after mark {last}), seed {seed}: {error}")
            return 1
    print(f"{cuts} power cuts of a whole device, seed {seed}: nothing was lost")
    return 0


sys.exit(main())
