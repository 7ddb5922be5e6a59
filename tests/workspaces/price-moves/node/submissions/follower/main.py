from price_moves.examples.follower import Follower


class Mine(Follower):
    pass
