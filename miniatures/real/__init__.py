"""SAEs of a real model, SmolLM2-135M-Instruct, and how they were trained.

The tokens are read in parts. Each part is harvested, and the SAEs of the part before are trained further
on it: disk and memory are those of one part, and a part that is done stays done.
``python -m cleansteer.miniatures smollm2`` does it all.
"""
