"""What the end-to-end tests stand on: network namespaces, processes, the protocol byte by byte, traffic."""
