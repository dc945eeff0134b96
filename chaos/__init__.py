"""`make chaos`: a cluster is killed, paused, stopped and cut off at random under load, and then judged.

    blows       what happens to whom, and when: drawn from a seed                     (pure)
    victims     what can be done to a cluster; containers and processes do it
    jobs        what is submitted, and what it must come to                           (pure)
    load        the clients: who submits, reads and watches, and notes what was said
    evidence    what was noted                                                        (pure)
    verdict     what follows from it: lost, changed, duplicated                       (pure)
    display     what is shown while it goes on, and the verdict in words
    trial       all of it together

Rules: it is a stranger to the code it tries. It knows the client protocol from `docs/protocol.md`, the compose file and
the command lines, and imports nothing of balancer, node, common or the client library.
"""
