"""The same fine-tuned weights in other libraries, each in an environment of its own, against bertrec's engines, in one run."""
