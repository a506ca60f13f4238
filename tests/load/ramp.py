"""A load that grows until a threshold is passed: how many users of a mix a server carries.

    locust -f tests/load/locustfile.py,tests/load/ramp.py --headless --ramp-users 16 --ramp-s 30

Each step adds users and lasts so long; its statistics begin anew once they are there. The last line
of the log says how many users the last good step had.
"""

from __future__ import annotations

import logging

from common import failures
from locust import LoadTestShape, events

log = logging.getLogger(__name__)


@events.init_command_line_parser.add_listener
def add_arguments(parser) -> None:
    parser.add_argument("--ramp-users", type=int, default=8, help="that each step adds")
    parser.add_argument("--ramp-s", type=float, default=30, help="that each step lasts")
    parser.add_argument("--ramp-steps", type=int, default=20, help="at most")


class Ramp(LoadTestShape):
    """Steps of users; the second half of each is judged."""

    step = 0
    judged = False

    def tick(self) -> tuple[int, float] | None:
        environment = self.runner.environment
        options = environment.parsed_options
        step = int(self.get_run_time() // options.ramp_s)
        if step != self.step or step >= options.ramp_steps:
            reasons = [*failures(environment)]
            users = (self.step + 1) * options.ramp_users
            log.info("%d users: %s", users, "; ".join(reasons) or "good")
            if reasons or step >= options.ramp_steps:
                good = users - options.ramp_users if reasons else users
                log.info("carried %d users", good)
                environment.stats.reset_all()  # the failed step is what was looked for
                return None
            self.step, self.judged = step, False
        half = self.get_run_time() % options.ramp_s > options.ramp_s / 2
        if half and not self.judged:
            self.judged = True
            environment.stats.reset_all()
        return (self.step + 1) * options.ramp_users, float(options.ramp_users)
