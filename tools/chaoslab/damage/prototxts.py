"""Prototxts with something wrong in them: mutations of solvers and nets, which a random generator decides.

A prototxt is read into a tree of fields, changed in a place or two and written again, or its text
is damaged. Nothing here knows what Caffe takes: whoever uses a mutant asks ``caffe train``.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Union

_TOKEN = re.compile(
    r"""\s+ | \#[^\n]* | [;,]
    | (?P<word> "(?:[^"\\\n]|\\.)*" | '(?:[^'\\\n]|\\.)*' | [^\s{}<>:;,\#"'\[\]]+ )
    | (?P<sign> [{}<>:\[\]] )
    """,
    re.VERBOSE,
)


@dataclass
class Field:
    """A field with a value, as it is written."""

    name: str
    value: str

    def text(self, depth: int = 0) -> str:
        return f"{'  ' * depth}{self.name}: {self.value}\n"


@dataclass
class Block:
    """A field that is a message; the root has no name.

    Attributes:
        type: the message's type in caffe.proto, "" where it is not known.
    """

    name: str
    items: list[Item] = field(default_factory=list)
    type: str = ""

    def text(self, depth: int = 0) -> str:
        if not self.name:
            return "".join(item.text() for item in self.items)
        inner = "".join(item.text(depth + 1) for item in self.items)
        return f"{'  ' * depth}{self.name} {{\n{inner}{'  ' * depth}}}\n"

    def blocks(self) -> Iterator[Block]:
        """This block and all that are in it."""
        yield self
        for item in self.items:
            if isinstance(item, Block):
                yield from item.blocks()


Item = Union[Field, Block]


def parse(text: str) -> Block:
    """The tree of a well-formed prototxt."""
    words = [match["word"] or match["sign"] for match in _TOKEN.finditer(text) if match.lastgroup]
    root = Block("")
    stack = [root]
    place = 0
    while place < len(words):
        word = words[place]
        if word in ("}", ">"):
            stack.pop()
            place += 1
            continue
        place += 1
        if words[place] == ":":
            place += 1
        if words[place] in ("{", "<"):
            block = Block(word)
            stack[-1].items.append(block)
            stack.append(block)
            place += 1
        elif words[place] == "[":
            end = words.index("]", place)
            stack[-1].items += [Field(word, value) for value in words[place + 1 : end]]
            place = end + 1
        else:
            value = words[place]
            place += 1
            while value[0] in "\"'" and place < len(words) and words[place][0] in "\"'":
                value += " " + words[place]  # strings side by side
                place += 1
            stack[-1].items.append(Field(word, value))
    return root


INTEGERS = ("0", "-1", "1", "2", "3", "7", "1000", "2147483647", "2147483648", "-2147483648",
            "4294967295", "4294967296", "99999999999999999999")  # fmt: skip
FLOATS = ("0.5", "-0.5", "1.0", "1.5", "nan", "inf", "-inf", "1e-45", "1e38", "1e400", "-0", "3.")
WORDS = ("true", "false", "NO_SUCH_VALUE", '""', '"x"', '"constant"', "'it'", "0x10", "010", "1_0", "+1",
         "- 1", '"a\\nb"', '"\\377\\376"', '"[/b]$x$_^"', "{ }", "[ ]", "[1, 2]")  # fmt: skip
NAMES = (
    '""',
    '"x"',
    '"constant"',
    '"data"',
    '"a\\nb"',
    '"\\377\\376"',
    '"[/b]$x$_^"',
    '"/"',
    '"../x y"',
)
LONG = 4500  # digits: Python reads no longer number than 4,300


class Mutator:
    """Makes mutants of prototxts, the same ones for the same random numbers.

    Args:
        messages: this Caffe's messages, ``lrbench_caffe.prototxt.messages.Messages``.
        layer_types: the layer types that it knows.
    """

    def __init__(self, messages: Any, layer_types: list[str]) -> None:
        self._messages = messages
        self._layer_types = layer_types

    def mutate(self, text: str, root: str, rng: random.Random) -> tuple[str, str]:
        """A mutant of a prototxt, and in words what was done to it.

        Args:
            text: the prototxt.
            root: its message's type, "SolverParameter" or "NetParameter".
        """
        if rng.random() < 0.08:
            what = rng.choice(TEXT_DAMAGE)
            return what(text, rng), what.__name__
        tree = parse(text)
        tree.type = root
        self._add_types(tree, self._messages.new(root).DESCRIPTOR)
        done = [self._once(tree, rng) for _ in range(rng.choice((1, 1, 1, 1, 2, 3)))]
        return tree.text(), ", ".join(done)

    def _add_types(self, block: Block, descriptor: Any) -> None:
        block.type = descriptor.name
        for item in block.items:
            known = descriptor.fields_by_name.get(item.name)
            if isinstance(item, Block) and known is not None and known.message_type is not None:
                self._add_types(item, known.message_type)

    def _once(self, tree: Block, rng: random.Random) -> str:
        while True:
            change = rng.choice(CHANGES)
            blocks = [block for block in tree.blocks() if block.items]
            # A net has many more layers than a solver has fields: take a level first.
            block = rng.choice(blocks)
            done = change(self, tree, block, rng)
            if done:
                return f"{change.__name__.strip('_')} {done}"

    # -- changes: each returns what it did, or None where it could do nothing ----------------------

    def _delete(self, tree: Block, block: Block, rng: random.Random) -> str:
        return block.items.pop(rng.randrange(len(block.items))).name

    def _duplicate(self, tree: Block, block: Block, rng: random.Random) -> str:
        item = rng.choice(block.items)
        block.items.insert(rng.randrange(len(block.items) + 1), _copy(item))
        return item.name

    def _swap(self, tree: Block, block: Block, rng: random.Random) -> str:
        one, other = rng.randrange(len(block.items)), rng.randrange(len(block.items))
        block.items[one], block.items[other] = block.items[other], block.items[one]
        return f"{block.items[one].name} and {block.items[other].name}"

    def _rename(self, tree: Block, block: Block, rng: random.Random) -> str:
        item = rng.choice(block.items)
        old = item.name
        fields = self._fields(block)
        slip = old[:-1] + rng.choice("aexs_") if len(old) > 1 else "q"
        item.name = rng.choice(
            [slip, old.upper(), *(f.name for f in rng.sample(fields, min(3, len(fields))))]
        )
        return f"{old} to {item.name}"

    def _move(self, tree: Block, block: Block, rng: random.Random) -> str:
        item = block.items.pop(rng.randrange(len(block.items)))
        target = rng.choice([b for b in tree.blocks() if b is not item])
        if isinstance(item, Block) and any(b is target for b in item.blocks()):
            target = tree
        target.items.insert(rng.randrange(len(target.items) + 1), item)
        return f"{item.name} from {block.type} to {target.type}"

    def _value(self, tree: Block, block: Block, rng: random.Random) -> str | None:
        fields = [
            item for item in block.items if isinstance(item, Field) and not _endless(item.name)
        ]
        if not fields:
            return None
        item = rng.choice(fields)
        item.value = self._new_value(block, item.name, rng)
        return f"{item.name} is {item.value[:40]}"

    def _add(self, tree: Block, block: Block, rng: random.Random) -> str | None:
        fields = [f for f in self._fields(block) if f.message_type is None and not _endless(f.name)]
        if not fields:
            return None
        name = rng.choice(fields).name
        added = Field(name, self._new_value(block, name, rng))
        block.items.append(added)
        return f"{name}: {added.value[:40]} to {block.type}"

    def _add_block(self, tree: Block, block: Block, rng: random.Random) -> str | None:
        """A message with a field or two, where it may stand: often a layer's parameters."""
        layers = [b for b in tree.blocks() if b.type == "LayerParameter"]
        block = rng.choice([block, *([rng.choice(layers)] if layers else [])])
        fields = [f for f in self._fields(block) if f.message_type is not None]
        if not fields:
            return None
        own = [f for f in fields if _belongs(f.name, block)]
        chosen = rng.choice(own if own and rng.random() < 0.6 else fields)
        new = next((b for b in block.items if isinstance(b, Block) and b.name == chosen.name), None)
        if new is None or rng.random() < 0.2:
            new = Block(chosen.name, type=chosen.message_type.name)
            block.items.append(new)
        self._add_types(new, chosen.message_type)
        for _ in range(rng.randrange(3)):
            inner = self._fields(new)
            plain = [f.name for f in inner if f.message_type is None and not _endless(f.name)]
            if plain:
                name = rng.choice(plain)
                new.items.append(Field(name, self._new_value(new, name, rng)))
        return f"{chosen.name} to {block.type}"

    def _layer_type(self, tree: Block, block: Block, rng: random.Random) -> str | None:
        types = [
            item
            for b in tree.blocks()
            if b.type == "LayerParameter"
            for item in b.items
            if isinstance(item, Field) and item.name == "type"
        ]
        if not types:
            return None
        item = rng.choice(types)
        old, item.value = item.value, f'"{rng.choice(self._layer_types)}"'
        return f"{old} to {item.value}"

    def _blobs(self, tree: Block, block: Block, rng: random.Random) -> str | None:
        """Bottoms and tops doubled, taken away, or of another layer."""
        layers = [b for b in tree.blocks() if b.type == "LayerParameter"]
        if not layers:
            return None
        layer = rng.choice(layers)
        names = [
            i.value
            for b in layers
            for i in b.items
            if isinstance(i, Field) and i.name in ("top", "bottom")
        ]
        ends = [i for i in layer.items if isinstance(i, Field) and i.name in ("top", "bottom")]
        how = rng.choice(("more", "less", "other", "same", "none"))
        if how == "more" or not ends:
            layer.items.append(Field(rng.choice(("top", "bottom")), rng.choice([*names, '"new"'])))
        elif how == "less":
            layer.items.remove(rng.choice(ends))
        elif how == "other":
            rng.choice(ends).value = rng.choice([*names, '"new"'])
        elif how == "same":
            layer.items.append(_copy(rng.choice(ends)))
        else:
            kind = rng.choice(ends).name
            layer.items = [i for i in layer.items if i.name != kind]
        return f"{how} of a layer"

    def _rule(self, tree: Block, block: Block, rng: random.Random) -> str | None:
        """An include or exclude of a layer, or a state of the solver."""
        layers = [b for b in tree.blocks() if b.type == "LayerParameter"]
        rule = {
            "phase": rng.choice(("TRAIN", "TEST", "0", "1", "2", "BOTH")),
            "min_level": rng.choice(INTEGERS),
            "max_level": rng.choice(INTEGERS),
            "stage": rng.choice(('"a"', '""', '"deep"')),
            "not_stage": rng.choice(('"a"', '""', '"deep"')),
        }
        chosen = [Field(name, rule[name]) for name in rng.sample(sorted(rule), rng.randrange(3))]
        if layers:
            layer = rng.choice(layers)
            layer.items.append(Block(rng.choice(("include", "exclude")), list(chosen)))
        else:
            state = rng.choice(("train_state", "test_state"))
            tree.items.append(Block(state, [f for f in chosen if f.name in ("phase", "stage")]))
        return " ".join(f"{f.name} {f.value}" for f in chosen) or "empty"

    def _nest(self, tree: Block, block: Block, rng: random.Random) -> str:
        """A block in itself, some or many times."""
        depth = rng.choice((1, 1, 150))
        inner = rng.choice(block.items)
        name = rng.choice([b.name for b in tree.blocks() if b.name] or ["train_state"])
        for _ in range(depth):
            inner = Block(name, [inner])
        block.items.append(inner)
        return f"{name} {depth} times"

    # -- parts -------------------------------------------------------------------------------------

    def _fields(self, block: Block) -> list[Any]:
        return list(self._messages.new(block.type).DESCRIPTOR.fields) if block.type else []

    def _new_value(self, block: Block, name: str, rng: random.Random) -> str:
        known = next((f for f in self._fields(block) if f.name == name), None)
        kinds: list[tuple[str, ...]] = [INTEGERS, FLOATS, WORDS]
        if known is not None and rng.random() < 0.9:
            if known.enum_type is not None:
                return str(
                    rng.choice(
                        [*(v.name for v in known.enum_type.values), "NO_SUCH_VALUE", "0", "77"]
                    )
                )
            kinds = [NAMES] if known.type == known.TYPE_STRING else [INTEGERS]
            if known.type == known.TYPE_BOOL:
                kinds = [("true", "false", "2")]
            if known.type in (known.TYPE_FLOAT, known.TYPE_DOUBLE):
                kinds = [INTEGERS, FLOATS]
        if rng.random() < 0.03:
            return rng.choice(
                ("9" * LONG, "0." + "3" * LONG, '"' + "n" * LONG + '"', "-" + "1" * LONG)
            )
        return rng.choice(rng.choice(kinds))


def _copy(item: Item) -> Item:
    if isinstance(item, Field):
        return Field(item.name, item.value)
    return Block(item.name, [_copy(inner) for inner in item.items], item.type)


def _endless(name: str) -> bool:
    """Fields whose large values only make a training long."""
    return name in ("max_iter", "test_iter", "iter_size", "rand_skip")


def _belongs(name: str, layer: Block) -> bool:
    """Whether a field of a layer has the parameters of its type: dropout_param and Dropout."""
    kinds = [
        item.value.strip("\"'")
        for item in layer.items
        if isinstance(item, Field) and item.name == "type"
    ]
    short = name.replace("_", "").removesuffix("param")
    return any(short and short in kind.lower() for kind in kinds) or name in (
        "param",
        "transform_param",
        "loss_param",
    )


CHANGES: tuple[Callable[..., Any], ...] = (
    *[Mutator._delete] * 3, Mutator._duplicate, Mutator._swap, Mutator._rename, Mutator._move,
    *[Mutator._value] * 5, *[Mutator._add] * 2, *[Mutator._add_block] * 4, *[Mutator._layer_type] * 2,
    *[Mutator._blobs] * 2, Mutator._rule, Mutator._nest,
)  # fmt: skip


# -- damage to the text; characters of U+DC80 to U+DCFF are bytes that are not text ----------------


def cut(text: str, rng: random.Random) -> str:
    """The text up to somewhere."""
    return text[: rng.randrange(len(text))]


def control_character(text: str, rng: random.Random) -> str:
    """One in the middle, a NUL among them."""
    place = rng.randrange(len(text))
    return text[:place] + rng.choice("\0\x01\x1b\x7f\x85\u2028\v\f\r") + text[place:]


def one_character_less(text: str, rng: random.Random) -> str:
    place = rng.randrange(len(text))
    return text[:place] + text[place + 1 :]


def another_character(text: str, rng: random.Random) -> str:
    place = rng.randrange(len(text))
    return text[:place] + rng.choice("{}<>:;\"'\\#0-é\udcff[],") + text[place + 1 :]


def byte_order_mark(text: str, rng: random.Random) -> str:
    return "\ufeff" + text


def other_encoding(text: str, rng: random.Random) -> str:
    """UTF-16, or a name in GBK."""
    if rng.random() < 0.5:
        return text.encode("utf-16").decode("utf-8", "surrogateescape")
    place = text.find('"') + 1
    return text[:place] + "\udcc4\udce3" + text[place:]


def long_line(text: str, rng: random.Random) -> str:
    place = text.rfind("\n", 0, rng.randrange(1, len(text))) + 1
    return text[:place] + rng.choice(("# ", "", 'name: "')) + "n" * 100_000 + "\n" + text[place:]


def dos_lines(text: str, rng: random.Random) -> str:
    return text.replace("\n", "\r\n")


def nothing(text: str, rng: random.Random) -> str:
    """An empty file, or one with blanks or a comment alone."""
    return rng.choice(("", " \n", "# nothing\n", "\0"))


def deep(text: str, rng: random.Random) -> str:
    """Deeper than a parser's limit of recursion."""
    name = rng.choice(("layer", "train_state", "net_param { layer"))
    depth = rng.choice((99, 101, 2000))
    return text + f"{name} {{ " * depth + "}" * depth


TEXT_DAMAGE = (cut, cut, control_character, one_character_less, another_character, byte_order_mark,
               other_encoding, long_line, dos_lines, nothing, deep)  # fmt: skip
