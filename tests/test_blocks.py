import pytest

from cegm.blocks import block_width


def test_blocks_divide_their_side():
    assert block_width(128, 128, 4, 1, "w") == 32
    with pytest.raises(ValueError, match="heads=5 does not divide the 12 features of layer 3"):
        block_width(12, 12, 5, 1, "layer 3")


@pytest.mark.parametrize(("outputs", "inputs"), [(128, 128), (384, 128), (128, 384), (7, 7), (12, 100), (1, 3)])
@pytest.mark.parametrize("sharers", [1, 2, 4])
def test_automatic_blocks_are_the_widest_within_the_memory_of_the_momentum(outputs, inputs, sharers):
    width = block_width(outputs, inputs, None, sharers, "w")
    assert outputs % width == 0

    def bytes_per_weight(w):
        return 4 * w * outputs * sharers / (outputs * inputs)

    assert bytes_per_weight(width) <= 4 or width == 1
    wider = [w for w in range(width + 1, outputs + 1) if outputs % w == 0]
    assert not wider or bytes_per_weight(wider[0]) > 4
