"""The parts that all processes of an engine share: topology, memory, clocks, sockets, limits and logs."""
