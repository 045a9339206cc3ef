"""Reading maps back: by name, in slices, as a table, in the workers of a loader."""

import pickle

import pytest
import torch
from torch.utils.data import DataLoader

from mmcam.cli import main
from mmcam.dumps.dump import dump
from mmcam.dumps.merge import merge
from mmcam.dumps.reader import MapReader
from mmcam.errors import UserError
from tests.dumps.conftest import Drawn, assert_same, run
from tests.tiny_task import TinyTask


def first_map(batch):
    return [(one.id, one.maps[0]) for one in batch]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_reads_in_its_workers(prepare, workers):
    made = prepare()
    dump(*made.all)
    with MapReader(made.folder.local) as maps:
        assert maps[0].id == "d0"  # the file is open before the fork
        loader = DataLoader(maps, 4, shuffle=True, num_workers=workers, collate_fn=first_map)
        found = dict(pair for batch in loader for pair in batch)
        assert set(found) == set(maps.ids)
        for name, values in found.items():
            assert torch.equal(values, maps[name].maps[0])


def test_another_process_opens_it_anew(prepare):
    made = prepare()
    dump(*made.all)
    maps = MapReader(made.folder.local)
    again = pickle.loads(pickle.dumps(maps))
    assert torch.equal(again["d3"].maps, maps["d3"].maps)
    maps.close()
    assert maps["d4"].id == "d4"
    maps.close()
    again.close()


def test_slices(prepare):
    made = prepare()
    dump(*made.all)
    with MapReader(made.folder.local) as maps:
        assert [one.id for one in maps[3:9:2]] == ["d3", "d5", "d7"]
        assert [one.id for one in maps[-1:]] == ["d19"]
        assert [one.id for one in maps] == list(maps.ids)


def test_a_part_is_read_like_the_whole(prepare):
    made = prepare()
    dump(*made.all)
    with MapReader(made.folder.local / "parts" / "part-00001.h5") as part, MapReader(made.folder.local) as whole:
        for one in part:
            assert torch.equal(one.maps, whole[one.id].maps)
            assert part.target_ids(one.id) == whole.target_ids(one.id)


def test_the_table(prepare):
    pytest.importorskip("pandas")
    made = prepare()
    dump(*made.all)
    with MapReader(made.folder.local) as maps:
        table = maps.to_dataframe()
        assert list(table.columns) == ["id", "prompt", "word", "target_id", "score", "peak", "flag"]
        assert len(table) == maps.rows == sum(len(one.words) for one in maps)
        rows = table[table["id"] == "d5"]
        assert tuple(rows["word"]) == maps["d5"].words
        assert tuple(rows["flag"]) == maps["d5"].flags
        torch.testing.assert_close(torch.tensor(rows["score"].to_numpy()), maps["d5"].scores)


def test_a_method_that_is_not_there(prepare):
    made = prepare()
    dump(*made.all)
    with pytest.raises(UserError, match=r"unknown method in .* 'hires_cam'"):
        MapReader(made.folder.local, "hires_cam")


def test_merging_dumps_of_several_machines(prepare, tmp_path):
    whole = prepare("whole", signed=True, weights=True, methods=("grad_cam", "hires_cam"))
    dump(*whole.all)
    parts = sorted((whole.folder.local / "parts").glob("*.h5"))
    merge(parts, tmp_path / "merged.h5")
    assert_same(tmp_path / "merged.h5", whole.folder.local / "maps.h5")
    with pytest.raises(UserError, match="holds 'd0' already"):
        merge([parts[0], parts[1], parts[0]], tmp_path / "twice.h5")
    assert not (tmp_path / "twice.h5").exists()
    other = prepare("other", task=TinyTask(seed=1).eval(), signed=True, weights=True, methods=("grad_cam", "hires_cam"))
    dump(*other.all)
    with pytest.raises(UserError, match="expected the weights_sha256 of"):
        merge([parts[0], other.folder.local / "maps.h5"], tmp_path / "unlike.h5")


def test_failures_are_merged(prepare, tmp_path):
    made = prepare(source=Drawn(12, broken=[1, 7]))
    dump(*made.all)
    with MapReader(made.folder.local) as maps:
        assert maps.failures == {"d1": "broken", "d7": "broken"}


def test_merge_and_inspect_by_command(pictures, capsys):
    assert run("--part-size", 4, "--methods", "grad_cam,hires_cam") == 0
    capsys.readouterr()
    assert main(["dump", "merge", *map(str, sorted(pictures.glob("out/parts/*.h5"))), "--out", "all.h5"]) == 0
    assert_same(pictures / "all.h5", pictures / "out" / "maps.h5")
    assert main(["dump", "inspect", "out", "all.h5"]) == 0
    out = capsys.readouterr().out
    assert "/hires_cam/maps" in out
    assert "weights_sha256" in out
    assert main(["dump", "inspect"]) == 2
    assert main(["dump", "inspct", "out"]) == 2
    assert "did you mean 'inspect'" in capsys.readouterr().err
    assert main(["dump", "merge", "all.h5"]) == 2
    assert main(["dump", "inspect", "task.yaml"]) == 2
    assert "expected an HDF5 file" in capsys.readouterr().err
