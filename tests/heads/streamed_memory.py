"""Fits a memory map in a process of its own and prints by how much its memory grew: labels, n_features, Cs."""

import resource
import sys

import numpy as np

from bottleneck import LogisticHead

path, labels, n_features = sys.argv[1], sys.argv[2], int(sys.argv[3])
Cs = [float(C) for C in sys.argv[4:]] or "auto"
X = np.memmap(path, dtype=np.float16, mode="r").reshape(-1, n_features)
y = np.load(labels)
LogisticHead(random_state=0).fit(np.random.default_rng(0).standard_normal((64, 40)), np.arange(64) % 2)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
head = LogisticHead(Cs, cv=5 if Cs == "auto" else 2, random_state=0, memory_limit=2**25).fit(X, y)
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
sys.stdout.write(f"{(after - before) / 1024:.0f} {head.accuracy_cv_:.4f} {head.n_passes_}")
