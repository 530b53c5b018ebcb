"""Tests of the plugin. Run them with: python3 -m unittest"""

import json
import unittest
from pathlib import Path

from larder_plugin import Fault
from larder_plugin.testing import Failed, run
from plugin import derive


class Derive(unittest.TestCase):
    def test_ratio_is_computed(self):
        self.assertEqual(derive(3.0, 2.0), 1.5)
        self.assertIsNone(derive(3.0, 0.0))
        self.assertIsNone(derive(None, 2.0))
        self.assertIsNone(derive(3.0, None))

    def test_denominator_below_0_is_a_fault(self):
        with self.assertRaises(Fault):
            derive(3.0, -2.0)

    def test_batch_is_computed(self):
        # `run` works as the host does. It also compares the batch with each row alone.
        rows = json.loads(Path(__file__).with_name("rows.json").read_text())
        failed = Failed("the denominator -2.0 is below 0")
        self.assertEqual(run(derive, rows), [{"ratio": 1.5}, {"ratio": None}, {"ratio": None}, failed])


if __name__ == "__main__":
    unittest.main()
