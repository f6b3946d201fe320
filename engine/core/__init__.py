"""The ground floor: requests, results, errors, the chain's ports, clocks and tables. Imports nothing above it."""
