"""Runs scikit-learn's array API checks, which need SCIPY_ARRAY_API to be set before SciPy is imported."""

import sys
import warnings

from sklearn.utils.estimator_checks import estimator_checks_generator

from bottleneck import LogisticHead, SVMHead

n_checks = 0
for head in (LogisticHead(), SVMHead(), SVMHead(kernel="rbf")):
    for estimator, check in estimator_checks_generator(head):
        if "array_api" in str(check):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                check(estimator)
            n_checks += 1
sys.stdout.write(str(n_checks))
