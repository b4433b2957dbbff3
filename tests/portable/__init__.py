"""The client for laptops, on a Linux from which everything is hidden that only Linux has."""
