"""What all processes of an engine share: the topology, memory, clocks, sockets, limits and logs."""
