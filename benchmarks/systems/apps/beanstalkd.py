"""A worker of beanstalkd: `python -m benchmarks.systems.apps.beanstalkd PORT`. Runs until it is ended."""

import json
import sys

from benchmarks.systems import tasks
from benchmarks.systems.beanstalkd import ANSWERS, JOBS, TALKS
from benchmarks.wire import Conversation


def main() -> None:
    talk = Conversation(int(sys.argv[1]), TALKS)
    talk.ask(b"watch %s\r\n" % JOBS)
    talk.ask(b"use %s\r\n" % ANSWERS)
    while True:
        line, body = talk.ask(b"reserve\r\n")
        task, arguments, answer = json.loads(body)
        result = json.dumps(getattr(tasks, task)(*arguments)).encode()
        if answer:
            talk.ask(b"put 100 0 600 %d\r\n%s\r\n" % (len(result), result))
        talk.ask(b"delete %s\r\n" % line.split()[1])


if __name__ == "__main__":
    main()
