"""Benchmarks: what each engine costs. Every sample is kept, and every figure says the machine it was measured on."""
