"""The original Rust clients, bore-cli 0.6.0 and 0.5.2, which this relay must serve unmodified."""
import os
import pathlib
import shutil
import subprocess

VERSIONS = ("0.6.0", "0.5.2")
INSTALL_TIMEOUT_S = 600


def default_directory():
    return pathlib.Path(os.environ.get("BORE_PEERS") or "~/.local/share/bore-peers").expanduser()


def program(directory, version):
    return pathlib.Path(directory) / f"bore-{version}" / "bin" / "bore"


def find_or_install(directory, version):
    """(path, None), or (None, why there is none)."""
    path = program(directory, version)
    if path.exists():
        return path, None
    cargo = shutil.which("cargo") or shutil.which("cargo", path=os.path.expanduser("~/.cargo/bin"))
    if cargo is None:
        return None, f"bore-cli {version} is neither at {path} nor is there a cargo to install it"
    command = [cargo, "install", "--locked", "--root", str(path.parent.parent), "--version", f"={version}", "bore-cli"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        return None, f"installing bore-cli {version} took more than {INSTALL_TIMEOUT_S} s"
    if done.returncode != 0:
        return None, f"cargo could not install bore-cli {version}: {done.stderr.strip().splitlines()[-1:]}"
    return path, None
