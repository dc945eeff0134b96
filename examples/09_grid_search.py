#!/usr/bin/env python3
"""A grid search of scikit-learn on all nodes: what joblib would run in processes of this machine, jobs run.

JOBYARD_URL=tcp://node1:9000 python 09_grid_search.py [AT_ONCE]

Without AT_ONCE as many fits run at once as the cluster has slots. scikit-learn has to be installed here, and in the
Python of the nodes (JOBYARD_PYTHON). The same works for whatever uses joblib: cross_val_score, RandomForestClassifier,
joblib.Parallel itself. (pip install 'jobyard[joblib]')
"""

import sys

import joblib
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV
from sklearn.svm import SVC

import jobyard.joblib


def main(at_once: int) -> None:
    images, digits = load_digits(return_X_y=True)
    search = GridSearchCV(SVC(), {"C": [1, 10], "gamma": [1e-4, 1e-3, 1e-2]}, cv=3)
    jobyard.joblib.register()
    with joblib.parallel_config(backend="jobyard", n_jobs=at_once):
        search.fit(images[:900], digits[:900])
    print(f"best of {len(search.cv_results_['params'])}: {search.best_params_}, right in {search.best_score_:.1%}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else -1)
