"""The CIC set: figures computed from a simulated history, answers that a checker can verify, sets on disk."""

from helpers.briefings import dataset

#: `elle data basic --count 400 --seed 7`, as the published figures of the trained model were made from.
BASIC_400_7 = {
    "train": "33b17945fd7e64643c27ca642e67341ad5a962c01645eba9b2277c1998dc1277",
    "validation": "9e34f798469baf7cc24e135200ae9fb66809622e40dc3d7369ed77cc9adaafae",
    "test": "871e29c13474a1ae50a53535d11d0d8d86ab5e7b18ce1fe80ca4d21bb3df6803",
}


def test_the_basic_set_keeps_its_bytes(tmp_path):
    manifest = dataset.build("basic", 400, 7, tmp_path)
    assert {name: facts["sha256"] for name, facts in manifest["splits"].items()} == BASIC_400_7
