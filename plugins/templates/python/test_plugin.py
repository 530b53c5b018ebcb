"""Tests of the plugin. Run them with: python3 -m unittest"""

import json
import unittest
from pathlib import Path

from larder_plugin.testing import run
from plugin import derive


class Derive(unittest.TestCase):
    def test_ratio_is_computed(self):
        self.assertEqual(derive(3.0, 2.0), 1.5)
        self.assertIsNone(derive(3.0, 0.0))
        self.assertIsNone(derive(None, 2.0))
        self.assertIsNone(derive(3.0, None))

    def test_batch_is_computed(self):
        rows = json.loads(Path(__file__).with_name("rows.json").read_text())
        self.assertEqual(run(derive, rows), [{"ratio": 1.5}, {"ratio": None}, {"ratio": None}])


if __name__ == "__main__":
    unittest.main()
