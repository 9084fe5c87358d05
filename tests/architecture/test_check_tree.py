#!/usr/bin/env python3
"""Tests of check_tree.py: each forbidden thing is planted in a small tree and must be found.

Uses the standard library alone, so that `meson test` needs nothing more. Called by meson.
"""

import pathlib
import sys
import tempfile
import unittest

sys.dont_write_bytecode = True
sys.path.insert(0, str(pathlib.Path(__file__).parent))
from check_tree import check_tree, main  # noqa: E402


class PlantedTree(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.root = pathlib.Path(self.folder.name)
        # A lawful little tree that every test breaks in one place.
        self.write("dataplane/base/ring.hpp", "#pragma once\n#include <cstdint>\n")
        self.write("dataplane/abi/engine.hpp", '#pragma once\n#include "dataplane/base/ring.hpp"\n')
        self.write("dataplane/stream/pair.hpp", '#pragma once\n#include "dataplane/abi/engine.hpp"\n')
        self.write("drivers/io_uring/loop.hpp",
                   '#pragma once\n#include <liburing.h>\n#include "dataplane/stream/pair.hpp"\n')
        self.write("controlplane/relay/relay.hpp",
                   '#pragma once\n#include <boost/asio.hpp>\n#include "dataplane/abi/engine.hpp"\n')
        self.write("controlplane/relay/main.cpp",
                   '#include "controlplane/relay/relay.hpp"\n#include "drivers/io_uring/loop.hpp"\n')
        for folder in ["dataplane", "dataplane/base", "dataplane/abi", "dataplane/stream",
                       "drivers", "drivers/io_uring", "controlplane", "controlplane/relay"]:
            self.write(f"{folder}/README.md", "What it is for.\n")

    def write(self, path, text):
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")

    def expect(self, path, words):
        """Exactly one problem, in this file, with these words."""
        problems = check_tree(self.root)
        self.assertEqual([problem[0] for problem in problems], [path], problems)
        self.assertIn(words, problems[0][2])

    def test_lawful_tree_passes(self):
        self.assertEqual(check_tree(self.root), [])
        self.assertEqual(main([str(self.root)]), 0)

    def test_arrow_up_from_base(self):
        self.write("dataplane/base/bad.cpp", '#include "dataplane/abi/engine.hpp"\n')
        self.expect("dataplane/base/bad.cpp", "dataplane/base may include only")

    def test_arrow_up_from_stream_to_driver(self):
        self.write("dataplane/stream/bad.cpp", '#include "drivers/io_uring/loop.hpp"\n')
        self.expect("dataplane/stream/bad.cpp", "dataplane/stream may include only")

    def test_driver_does_not_include_control_plane(self):
        self.write("drivers/io_uring/bad.cpp", '#include "controlplane/relay/relay.hpp"\n')
        self.expect("drivers/io_uring/bad.cpp", "drivers/io_uring may include only")

    def test_composition_only_in_main(self):
        self.write("controlplane/relay/bad.cpp", '#include "drivers/io_uring/loop.hpp"\n')
        self.expect("controlplane/relay/bad.cpp", "controlplane/relay may include only")

    def test_indented_include_is_read(self):
        self.write("dataplane/base/bad.cpp", '#  include "dataplane/abi/engine.hpp"\n')
        self.expect("dataplane/base/bad.cpp", "may include only")

    def test_relative_include_is_refused(self):
        self.write("dataplane/abi/bad.cpp", '#include "../base/ring.hpp"\n')
        self.expect("dataplane/abi/bad.cpp", "no file counted from the top")

    def test_unknown_folder_is_refused(self):
        self.write("elsewhere/bad.cpp", '#include "dataplane/base/ring.hpp"\n')
        self.write("elsewhere/README.md", "x\n")
        self.expect("elsewhere/bad.cpp", "outside the folders")

    def test_outside_headers(self):
        cases = [
            ("drivers/io_uring/bad.cpp", "rte_ethdev.h", "DPDK"),
            ("controlplane/relay/bad.cpp", "liburing.h", "liburing"),
            ("drivers/io_uring/bad.cpp", "boost/asio/ip/tcp.hpp", "Boost.Asio"),
            ("dataplane/base/bad.cpp", "boost/asio.hpp", "Boost.Asio"),
            ("drivers/io_uring/bad.cpp", "spdlog/spdlog.h", "spdlog"),
            ("dataplane/abi/bad.cpp", "spdlog/spdlog.h", "spdlog"),
            ("dataplane/stream/bad.cpp", "sys/socket.h", "system call"),
            ("dataplane/stream/bad.cpp", "unistd.h", "system call"),
            ("dataplane/base/bad.cpp", "openssl/hmac.h", "control plane"),
        ]
        for path, header, words in cases:
            with self.subTest(path=path, header=header):
                self.write(path, f"#include <{header}>\n")
                self.expect(path, words)
                (self.root / path).unlink()

    def test_system_calls_in_the_codec(self):
        self.write("controlplane/bore/README.md", "The codec.\n")
        self.write("controlplane/bore/bad.cpp", "#include <netinet/tcp.h>\n")
        self.expect("controlplane/bore/bad.cpp", "system call")

    def test_folder_without_readme(self):
        (self.root / "drivers/io_uring/README.md").unlink()
        self.expect("drivers/io_uring", "has no README.md")

    def test_long_file(self):
        self.write("dataplane/base/ok.cpp", "//\n" * 700)
        self.assertEqual(check_tree(self.root), [])
        self.write("dataplane/base/long.cpp", "//\n" * 701)
        self.expect("dataplane/base/long.cpp", "has 701 lines")

    def test_header_without_pragma_once(self):
        self.write("dataplane/base/bare.hpp", "// nothing\n")
        self.expect("dataplane/base/bare.hpp", "#pragma once")

    def test_built_files_are_not_read(self):
        self.write("build/release/bad.cpp", '#include "nowhere.hpp"\n')
        self.assertEqual(check_tree(self.root), [])

    def test_exit_code_tells(self):
        self.write("dataplane/base/bad.cpp", '#include "dataplane/abi/engine.hpp"\n')
        self.assertEqual(main([str(self.root)]), 1)


if __name__ == "__main__":
    unittest.main()
