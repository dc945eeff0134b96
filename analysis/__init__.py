"""The analysis of placement: every policy gets the same seeded workloads, and what became of them is compared.

    loads.py ──► virtual.py (the pure machines, in virtual time) ──┐
             └─► real.py (processes of this machine) ──────────────┴─► events ──► story.py ──► measures.py
                                       report.py, plots.py ◄── results.py ◄── intervals.py ◄──┘

Rules: both ways give the event log, and nothing else is measured, so what is measured here anybody can measure on a
cluster of his own (docs/events.md). From arrival to finish, waiting included. All but the runners and what draws is
pure.
"""
