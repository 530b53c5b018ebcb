"""`python -m larder`: prints what the package does and how to use it."""

from __future__ import annotations

import argparse

from . import _native

HELP = """\
The Python package of Larder: point-in-time training sets, and lookups from a running server.

  import larder
  fs = larder.FeatureStore("larder.yaml")
  fs.get_historical_features(entity_df, feature_service="SERVICE").to_df()
  fs.apply_derived(frame, features=["VIEW:FEATURE"]).to_df()
  fs.get_online_features(feature_service="SERVICE", entities={"KEY": ["VALUE"]}).to_dict()

'larder.spark' and 'larder.ray' build training sets on Spark and Ray.

'help(larder.FeatureStore)' in Python prints all methods and their arguments. The package does not contain the server and
its commands, such as 'larder serve' and 'larder training-set', which the program 'larder' has.
"""

ENVIRONMENT = """\
environment variables:
  LARDER_CONFIG      the path of larder.yaml
  LARDER_FEAST_REPO  the directory of a Feast repository
  LARDER_URL         the address of the server
  LARDER_TOKEN       the bearer token of the server
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m larder",
        description=HELP,
        epilog=ENVIRONMENT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"larder {_native.__version__}")
    parser.parse_args()
    parser.print_help()


if __name__ == "__main__":
    main()
