"""Context cards as records and as files: spectra against whole matrices, sums, names, damage."""

import dataclasses

import pytest
import torch

from cegm.context.card import ContextCard, Spectrum, bare_name, spectrum

pytest.importorskip("safetensors")


def moment(width, tokens=400, seed=0, decay=3.0):
    """The second moment of vectors whose directions are used very unequally."""
    generator = torch.Generator().manual_seed(seed)
    scales = torch.linspace(0, -decay, width).exp()
    vectors = torch.randn(tokens, width, generator=generator) * scales
    mixed = vectors @ torch.linalg.qr(torch.randn(width, width, generator=generator)).Q
    return mixed.mT @ mixed / tokens


def example(seed=0, share=4, weight=None):
    contexts = spectrum(moment(12, seed=seed), share)
    generator = torch.Generator().manual_seed(99 if weight is None else weight)
    samples = {f"{name}.weight": torch.randn(16, generator=generator) for name in ("q", "k", "o")}
    entries = {"q.weight": contexts, "k.weight": contexts, "o.weight": spectrum(moment(8, seed=seed + 7), 2)}
    return ContextCard(entries, {}, samples, ({"text": f"home {seed}"},))


def test_a_spectrum_with_all_directions_is_the_whole_matrix():
    whole = moment(20)
    torch.testing.assert_close(spectrum(whole, 20).dense(), whole, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("directions", [1, 5, 19])
def test_a_thin_spectrum_keeps_leading_eigenvalues_and_the_trace(directions):
    whole = moment(20)
    values = torch.linalg.eigvalsh(whole.double()).flip(0)
    thin = spectrum(whole, directions)
    torch.testing.assert_close(thin.values.double(), values[:directions], rtol=1e-5, atol=1e-7)
    assert float(thin.rest) == pytest.approx(float(values[directions:].mean()), rel=1e-5)
    assert float(thin.mean) == pytest.approx(float(whole.trace()) / 20, rel=1e-5)
    theirs = torch.linalg.eigvalsh(thin.dense().double()).flip(0)
    torch.testing.assert_close(theirs[:directions], values[:directions], rtol=1e-4, atol=1e-6)


def test_energy_is_that_of_the_whole_matrix_and_one_on_average():
    home, direction = spectrum(moment(20), 6), torch.randn(7, 20)
    dense = home.dense().double()
    expected = torch.trace(direction.double() @ dense @ direction.double().T) / direction.double().square().sum()
    assert float(home.energy(direction)) == pytest.approx(float(expected * 20 / dense.trace()), rel=1e-4)
    assert float(home.energy(torch.eye(20))) == pytest.approx(1.0, rel=1e-4)
    assert (
        float(home.energy(home.vectors[:, :1].T))
        > 3
        > 1
        > float(home.energy(torch.linalg.eigh(dense)[1][:, :1].T.float()))
    )


@pytest.mark.parametrize(
    ("name", "bare", "factor"),
    [
        ("model.layers.0.q_proj.weight", "model.layers.0.q_proj.weight", ""),
        ("base_model.model.model.layers.0.q_proj.base_layer.weight", "model.layers.0.q_proj.weight", ""),
        ("base_model.model.model.layers.0.q_proj.lora_A.default.weight", "model.layers.0.q_proj.weight", "A"),
        ("module.base_model.model.h.3.mlp.c_fc.lora_B.mine.weight", "h.3.mlp.c_fc.weight", "B"),
        ("_orig_mod.h.3._checkpoint_wrapped_module.mlp.weight", "h.3.mlp.weight", ""),
    ],
)
def test_names_lose_what_wrappers_and_adapters_add(name, bare, factor):
    assert bare_name(name) == (bare, factor)


def test_a_file_keeps_the_card(tmp_path):
    card = example()
    loaded = ContextCard.load(card.save(tmp_path / "card.safetensors"))
    assert loaded.hash == card.hash
    assert loaded.homes == card.homes
    assert loaded.contexts["q.weight"] is loaded.contexts["k.weight"]  # what is shared is kept once
    for name, entry in card.contexts.items():
        other = loaded.contexts[name]
        assert torch.equal(other.values, entry.values)
        assert torch.equal(other.rest, entry.rest)
        torch.testing.assert_close(other.dense(), entry.dense(), rtol=0, atol=2e-2 * float(entry.values.max()))
        identity = torch.eye(other.vectors.shape[-1])
        torch.testing.assert_close(other.vectors.mT @ other.vectors, identity, rtol=0, atol=1e-5)
    assert all(torch.equal(loaded.samples[name], sample) for name, sample in card.samples.items())


def damage_truncated(content):
    return content[: len(content) // 2]


def damage_empty(content):
    return b""


def damage_format(content):
    return content.replace(b"cegm context card 1", b"cegm context card 9")


def damage_text(content):
    return b"a story about a card" * 10


@pytest.mark.parametrize("damage", [damage_truncated, damage_empty, damage_format, damage_text])
def test_a_damaged_file_is_refused_in_one_line_with_its_path(tmp_path, damage):
    path = example().save(tmp_path / "card.safetensors")
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match="no whole context card") as caught:
        ContextCard.load(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("part", ["vectors", "values", "rest"])
@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_are_refused(tmp_path, part, number):
    card = example()
    entry = card.contexts["o.weight"]
    spoiled = entry._replace(**{part: torch.full_like(getattr(entry, part), number)})
    path = dataclasses.replace(card, contexts={**card.contexts, "o.weight": spoiled}).save(tmp_path / "c.safetensors")
    with pytest.raises(ValueError, match="not finite"):
        ContextCard.load(path)


def test_cards_add_their_matrices():
    first, second = example(0, share=12), example(1, share=12)
    both = first + second
    for name in first.contexts:
        expected = first.contexts[name].dense() + second.contexts[name].dense()
        torch.testing.assert_close(
            both.contexts[name].mean, first.contexts[name].mean + second.contexts[name].mean, rtol=1e-5, atol=0
        )
        if name != "o.weight":
            torch.testing.assert_close(both.contexts[name].dense(), expected, rtol=1e-4, atol=1e-5)
    assert both.homes == (*first.homes, *second.homes)
    assert both.contexts["q.weight"] is both.contexts["k.weight"]
    torch.testing.assert_close((second + first).contexts["q.weight"].dense(), both.contexts["q.weight"].dense())


def test_cards_of_models_that_are_no_kin_do_not_add():
    with pytest.raises(ValueError, match="no kin"):
        example(0) + example(0, weight=1)
    other = example(0)
    fewer = dataclasses.replace(other, contexts={"q.weight": other.contexts["q.weight"]})
    with pytest.raises(ValueError, match="other layers"):
        other + fewer


def test_a_card_knows_its_model_and_what_training_made_of_it():
    generator = torch.Generator().manual_seed(5)
    weights = {name: torch.randn(30, 40, generator=generator) for name in ("a", "b")}
    from cegm.context.card import sampled

    card = ContextCard({}, {}, {name: sampled(weight) for name, weight in weights.items()}, ())
    card.require_of(weights)
    card.require_of({name: w + 0.1 * torch.randn(w.shape, generator=generator) for name, w in weights.items()})
    for strangers in (
        {name: torch.randn(30, 40, generator=generator) for name in weights},
        {name: w[:20] for name, w in weights.items()},
        {"c": weights["a"]},
    ):
        with pytest.raises(ValueError, match="no offspring") as caught:
            card.require_of(strangers)
        from cegm.context.card import hash_of

        assert hash_of(card.samples) in str(caught.value)
        assert hash_of({name: sampled(w) for name, w in strangers.items()}) in str(caught.value)


def test_a_spectrum_of_blocks_is_that_of_each_block():
    blocks = torch.stack([moment(6, seed=1), moment(6, seed=2)])
    together = spectrum(blocks, 3)
    for index, block in enumerate(blocks):
        alone = spectrum(block, 3)
        torch.testing.assert_close(Spectrum(*(part[index] for part in together)).dense(), alone.dense())
