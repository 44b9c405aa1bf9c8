"""Holding the training between steps, and letting single ones through."""

import threading

from probe.pausing import Pause


class Training:
    """Takes steps in a thread, each when the pause lets it."""

    def __init__(self, pause):
        self.pause, self.steps = pause, 0
        self.moved = threading.Condition()
        self.ended = False
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self):
        while not self.ended:
            if self.pause.held:
                self.pause.wait()
            with self.moved:
                self.steps += 1
                self.moved.notify_all()
                while not self.pause.held and not self.ended:
                    self.moved.wait(0.01)

    def until(self, steps):
        with self.moved:
            return self.moved.wait_for(lambda: self.steps >= steps, 20)

    def end(self):
        self.ended = True
        self.pause.release()
        self.thread.join(20)


def test_a_step_lets_one_through_and_holds_again():
    pause = Pause(1)
    pause.hold()
    training = Training(pause)
    try:
        assert training.steps == 0
        for count in (1, 2, 3):
            pause.step()
            assert training.until(count)
            assert pause.held
            pause.hold()  # a renewal lets nothing through
            assert training.steps == count
    finally:
        training.end()
    assert not pause.held
    assert training.steps == 4, "the release"


def test_a_step_of_a_training_that_is_not_held_holds_it_after_one():
    pause = Pause(1)
    pause.step()
    assert pause.held
    assert pause.wait() < 1.0
    assert pause.held
    pause.release()
