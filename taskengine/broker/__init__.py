"""The pure core of the router: packages, lanes, chunking, quotas, and which worker runs what."""
