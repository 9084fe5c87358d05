#!/usr/bin/env python3
"""Reads the includes of the tree and names every one that the architecture forbids.

The rules live here as two tables: ALLOWED (which folder may include which of our folders) and
OUTSIDE (which headers of others belong to which folders). Size and README rules stand beside
them. Called by `meson test` and by tools/test; test_check_tree.py plants violations and expects
them to be found. It reads files only and knows nothing of the build.

Use: check_tree.py [ROOT]
"""

import pathlib
import re
import sys

# Folder -> our folders that its files may include besides their own. A path belongs to its longest
# prefix. Arrows point down: base <- abi <- stream, packet <- drivers; the control plane sees base,
# abi and the engine seam in abi; only a program's main.cpp joins drivers and control plane.
ALLOWED = {
    "dataplane/base": [],
    "dataplane/abi": ["dataplane/base"],
    "dataplane/stream": ["dataplane/base", "dataplane/abi"],
    "dataplane/packet": ["dataplane/base", "dataplane/abi"],
    "drivers/kernel": ["dataplane"],
    "drivers/dpdk": ["dataplane"],
    "drivers/io_uring": ["dataplane", "drivers/kernel", "drivers/stream_engine"],
    "drivers/epoll": ["dataplane", "drivers/kernel", "drivers/stream_engine"],
    "drivers/stream_engine": ["dataplane", "drivers"],
    "drivers/packet_engine": ["dataplane", "drivers"],
    "controlplane/bore": ["dataplane/base"],
    "controlplane/config": ["dataplane/base", "dataplane/abi", "controlplane/bore"],
    "controlplane/command": ["controlplane/config"],
    "controlplane/relay": [
        "dataplane/base", "dataplane/abi", "controlplane/bore", "controlplane/config",
        "controlplane/command"],
    "controlplane/ctl": [
        "dataplane/base", "dataplane/abi", "controlplane/config", "controlplane/command"],
    "controlplane/client": [
        "dataplane/base", "dataplane/abi", "controlplane/bore", "controlplane/config"],
    "controlplane/exporter": ["dataplane/base", "dataplane/abi", "controlplane/config"],
    "bench": ["dataplane/base", "dataplane/abi", "controlplane/bore"],
    "bench/micro": ["dataplane", "controlplane/bore", "controlplane/config", "controlplane/relay",
                    "bench/packet"],
    "bench/packet": ["dataplane", "drivers", "bench/load"],
    "tests": ["dataplane", "drivers", "controlplane", "bench"],
}
# A program's main.cpp composes: it may include the drivers, too; so may what was split from it.
COMPOSITION = {
    "controlplane/relay/main.cpp": ["drivers"],
    "controlplane/relay/engine_choice.hpp": ["drivers", "dataplane/packet"],
    "controlplane/relay/engine_choice.cpp": ["drivers", "dataplane/packet"],
    "controlplane/client/main.cpp": ["drivers"],
}

SYSTEM_CALLS = (
    r"(sys/(socket|epoll|uio|ioctl|mman|timerfd|eventfd|signalfd|un|sendfile|resource|wait|stat"
    r"|syscall)\.h|unistd\.h|fcntl\.h|poll\.h|netdb\.h|signal\.h|csignal|sched\.h|pthread\.h"
    r"|netinet/.*|arpa/.*|net/.*|linux/.*|thread|filesystem|fstream)$"
)

# (what it is, pattern of the included name, folders that may have it; with only=False the
# folders that may not).
OUTSIDE = [
    ("DPDK", r"rte_.*", True, ["drivers/dpdk"]),
    ("liburing", r"liburing(\.h|/.*)$|linux/io_uring\.h$", True, ["drivers/io_uring", "tests/drivers"]),
    ("Boost.Asio", r"boost/asio(\.hpp|/.*)$", True,
     ["controlplane/exporter", "controlplane/relay", "controlplane/client", "tests/relay",
      "tests/client"]),
    ("prometheus-cpp", r"prometheus/.*", True, ["controlplane/exporter", "tests/exporter"]),
    ("spdlog", r"spdlog/.*", False, ["dataplane", "drivers"]),
    ("a system call or thread header", SYSTEM_CALLS, False,
     ["dataplane/stream", "dataplane/packet", "controlplane/bore"]),
    ("a library of the control plane", r"(CLI/.*|toml\+\+/.*|toml\.hpp|openssl/.*|boost/json.*)$",
     False, ["dataplane", "drivers"]),
]

MAX_LINES = 700
SOURCE = {".cpp", ".hpp", ".h", ".cc", ".hh", ".c"}
COUNTED = SOURCE | {".py", ".sh"}
SKIPPED_FOLDERS = {"build", "__pycache__", "corpus", "subprojects"}
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')


def inside(path, folder):
    return path == folder or path.startswith(folder + "/")


def owner(path, table):
    """The longest prefix of the path that the table names."""
    matches = [folder for folder in table if inside(path, folder)]
    return max(matches, key=len) if matches else None


def files_of(root):
    """Every file of the tree, as a path relative to the root, without hidden and built ones."""
    found = []
    for entry in sorted(root.iterdir()):
        if entry.name.startswith(".") or entry.name in SKIPPED_FOLDERS or entry.is_symlink():
            continue
        if entry.is_dir():
            found += [f"{entry.name}/{path}" for path in files_of(entry)]
        else:
            found.append(entry.name)
    return found


def check_our_include(root, path, target):
    if not (root / target).is_file():
        return f'includes "{target}", which is no file counted from the top of the tree'
    home = owner(path, ALLOWED)
    if home is None:
        return "is source outside the folders that the architecture names (ALLOWED)"
    allowed = [home] + ALLOWED[home] + COMPOSITION.get(path, [])
    if any(inside(target, folder) for folder in allowed):
        return None
    return f'includes "{target}": {home} may include only {", ".join(allowed)}'


def check_outside_include(path, target):
    for name, pattern, only, folders in OUTSIDE:
        if not re.match(pattern, target):
            continue
        listed = any(inside(path, folder) for folder in folders)
        if listed != only:
            rule = "belongs only in" if only else "does not belong in"
            return f"includes <{target}>: {name} {rule} {', '.join(folders)}"
    return None


def check_source(root, path, lines):
    problems = []
    if path.endswith((".hpp", ".h", ".hh")) and "#pragma once" not in (x.strip() for x in lines):
        problems.append((path, 1, "is a header without #pragma once"))
    for number, line in enumerate(lines, start=1):
        match = INCLUDE.match(line)
        if not match:
            continue
        quote, target = match.groups()
        if quote == '"':
            problem = check_our_include(root, path, target)
        else:
            problem = check_outside_include(path, target)
        if problem:
            problems.append((path, number, problem))
    return problems


def check_tree(root):
    """All problems of the tree as (path, line, sentence)."""
    problems = []
    folders = set()
    for path in files_of(root):
        suffix = pathlib.PurePath(path).suffix
        name = pathlib.PurePath(path).name
        folder = str(pathlib.PurePath(path).parent)
        if suffix in COUNTED or name == "meson.build":
            # A folder of code and every folder above it explain themselves.
            while folder != ".":
                folders.add(folder)
                folder = str(pathlib.PurePath(folder).parent)
        if suffix not in COUNTED:
            continue
        lines = (root / path).read_text(encoding="utf-8").splitlines()
        if len(lines) > MAX_LINES:
            problems.append((path, MAX_LINES, f"has {len(lines)} lines, the limit is {MAX_LINES}:"
                                              " split it"))
        if suffix in SOURCE:
            problems += check_source(root, path, lines)
    for folder in sorted(folders):
        if not (root / folder / "README.md").is_file():
            problems.append((folder, 0, "has no README.md: say in a screen what it is for"))
    return problems


def main(arguments):
    root = pathlib.Path(arguments[0]) if arguments else pathlib.Path(__file__).parents[2]
    if not root.is_dir():
        print(f"{root}: not a folder; give the top of the tree", file=sys.stderr)
        return 2
    problems = check_tree(root.resolve())
    for path, line, sentence in problems:
        print(f"{path}:{line}: {sentence}")
    checked = sum(1 for path in files_of(root.resolve())
                  if pathlib.PurePath(path).suffix in SOURCE)
    print(f"architecture: {checked} source files read, {len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
