"""The router process: its frontend, the workers that it knows, replies, and the stop port."""
