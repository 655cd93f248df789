"""Arithmetic word problems with worked steps, in the columns of Math10K.

A stand-in for the real data set where no hub can be reached. A problem is drawn, not looked up: a
story world (a bakery, a bus, a wage, a fence, ...) supplies nouns and phrasings, and one to four
arithmetic operations act on a running amount. Each operation tells one fact of the story and works
one or two equations of the solution; scene, flavor, order, connectives, distractor and question are
then drawn independently of one another.

Phrasings are written as ``[this|that]``, of which one alternative is drawn (they nest), and
``{slot}``, which is filled in last. Sentences start in lower case and have no final period, so that
they can be joined; ``{P}`` is the hero, by name or by pronoun, and ``{O}`` the hero's friend.
"""

import random
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any


@dataclass(frozen=True)
class Noun:
    """A countable thing or unit, in both numbers."""

    one: str
    many: str

    def form(self, amount: Decimal | int) -> str:
        """Return the form that agrees with `amount`."""
        return self.one if amount == 1 else self.many


@dataclass(frozen=True)
class Hero:
    """Whom a story is about, with the pronouns that stand in for the name."""

    name: str
    he: str = "it"
    him: str = "it"
    his: str = "its"


@dataclass(frozen=True)
class World:
    """The setting of a story: its vocabulary, its number ranges and its phrasing per operation.

    An operation is possible in a world exactly if `lines` has a phrasing under its name.
    """

    nouns: tuple[Noun, ...]
    boxes: tuple[Noun, ...]
    places: tuple[str, ...]  # the hero is one of these, or a person where there are none
    lines: dict[str, str]
    start: Sequence[int] = range(4, 21)
    groups: Sequence[int] = range(2, 7)
    sizes: Sequence[int] = range(2, 9)


def _nouns(text: str) -> tuple[Noun, ...]:
    """Read "apple, box/boxes" as nouns; a plural left out ends in s."""
    words = [word.strip().partition("/") for word in text.split(",") if word]
    return tuple(Noun(one, many or f"{one}s") for one, _, many in words)


def _measures(unit: str, stuffs: str) -> str:
    return ", ".join(f"{unit} of {stuff}/{unit}s of {stuff}" for stuff in stuffs.split(", "))


DOLLAR = Noun("dollar", "dollars")
_PRICES = tuple(Decimal(cents) / 100 for cents in range(200, 1050, 50))
_PRICES += _PRICES[::2] * 8  # mostly in whole dollars
NAMES = {
    "she": "Ada Alma Amira Anna Bella Carla Clara Diana Elena Emma Fiona Grace Hana Ivy Jana Julia "
    "Keiko Lena Lily Maya Mia Nadia Nina Nora Olga Paula Priya Rosa Sara Tara Vera Yuna Zoe",
    "he": "Adam Ali Amir Ben Carl Daniel David Eric Felix Finn George Hugo Ivan Jack Jon Karim "
    "Leo Liam Marco Martin Milo Nico Noah Omar Oscar Paul Peter Ravi Sam Simon Theo Tom Victor",
}
PEOPLE = [Hero(name, "she", "her", "her") for name in NAMES["she"].split()]
PEOPLE += [Hero(name, "he", "him", "his") for name in NAMES["he"].split()]

# What a person can do with things that are counted one by one.
_THINGS = {
    "given": "{P} had {a_things}[| at first| to begin with]|{P} started [out |]with {a_things}",
    "groups": "{P} had {k} {boxes}[, each holding {m_things}| with {m_things} in each of them]|"
    "each {box} [held|contained] {m_things}, and {P} had {k} {boxes}[ like that|]",
    "dozens": "{P} [bought|ordered|got] {k} dozen {things}, and a dozen is {m}",
    "sum": "{P} had {x} {adj} {things} and {y} {adj2} ones|"
    "{P} had {x} {things} in one {box} and {y} in another[ one|]",
    "gain": "{P} [bought|got|ordered] {n_more}|{O} gave {Po} {n_more}|"
    "{Ps} [uncle|aunt|grandmother|neighbor] [brought|gave] {him} {n_more}",
    "lose": "{P} gave {n_of} to {O}|{P} [lost|gave away] {n_of}|{O} [took|borrowed] {n_of}",
    "fraction": "{P} gave {part} of the {things} to {O}|"
    "{part} of the {things} were [given away|sold]",
    "keep": "{P} kept [only |just |]{part} of the {things}[ and gave the rest away|]",
    "percent": "{P} gave {pct}% of the {things} to {O}|"
    "{pct}% of the {things} were [given away|donated to a school]",
    "packs": "{P} bought {k} packs [of|with] {m_things}[ each|]|"
    "{k} [friends|cousins|neighbors] each [gave|brought] {Po} {m_more}",
    "hand": "{P} gave {m_things} to each of {his} {k} [friends|cousins|classmates]|"
    "{k} [friends|cousins|classmates] each took {m_things}",
    "times": "[within a|over the next] [month|year], the number of {things} {doubled}",
    "compare_more": "{O} had {n_more} than {Po}",
    "compare_fewer": "{O} had {n_fewer} than {Po}",
    "compare_times": "{O} had {times} as many {things} as {Po}",
    "compare_part": "{O} had {part} as many {things} as {Po}",
    "ask_compare": "how many {things} did {P} have",
    "together": "how many {things} did [the two of them|{P} and {O}|the two friends] have "
    "[together|in all|in total]",
    "gap": "{O} [had|owned] {n_things}",
    "ask_gap": "how many more {things} did {P} have than {O}",
    "share": "{P} [shared|divided|split] [all |]the {things} [equally|evenly] among {k} "
    "[friends|cousins|neighbors|children]",
    "ask_share": "how many {things} did each [of them|person] get",
    "fill": "{P} [put|packed] [all |]the {things} into {crates}[, {m} to a {crate}| of {m}| "
    "that hold {m} each]",
    "ask_fill": "how many {crates} did {P} [fill|need]",
    "spare": "{P} [put|packed] [the|these] {things} into {crates} that hold exactly {m} each, "
    "filling as many as possible",
    "ask_spare": "how many {things} [were left over|did not go into a full {crate}]",
    "need": "{P} [wants|would like|hopes] to have {t_things}[ in all|]",
    "ask_need": "how many more {things} does {P} [still |]need",
    "pace": "{P} gave away {m_things} [every|each] day until none were left",
    "ask_pace": "how many days did that take",
    "sell": "{P} sold [all|every one] of the {things} for {price} each",
    "ask_sell": "how much money did {P} [make|earn|get] from [this|the sale]",
    "ask": "how many {things} does {P} have [now|in the end|after that]",
    "ask_all": "how many {things} did {P} have [in all|altogether|in total]",
    "ask_left": "how many {things} does {P} have [left|now]|how many {things} are left",
}
# What happens to people, animals or things at a place.
_CROWD = {
    "fraction": "{part} of the {things} [left|went away]",
    "percent": "{pct}% of the {things} [left|went away]",
    "times": "by the next [day|week], the number of {things} {doubled}",
    "fill": "all the {things} were [sorted|put|divided] into groups of {m}",
    "ask_fill": "how many groups were there",
}


def _world(
    base: dict[str, str],
    nouns: str,
    boxes: str = "box/boxes, bag, basket, crate",
    places: str = "",
    ranges: dict[str, Any] | None = None,
    **lines: str,
) -> World:
    """Build a world whose `lines` go before those of `base`."""
    place_names = tuple(f"the {place}" for place in places.split(", ") if place)
    return World(_nouns(nouns), _nouns(boxes), place_names, base | lines, **(ranges or {}))


WORLDS = (
    _world(  # a collection
        _THINGS,
        "sticker, marble, stamp, seashell, badge, postcard, toy car, comic book, old coin",
        scene="{P} [collects|loves|is proud of {his}] {things}|"
        "{Ps} favorite hobby is collecting {things}",
        adj="old new, large small, rare common",
    ),
    _world(  # a bakery
        _THINGS,
        "muffin, cookie, pancake, dumpling, bread roll, cupcake, pretzel, waffle",
        "box/boxes, tin, basket, paper bag",
        scene="{P} [runs|works in|helps out in] a [small |busy |]bakery|"
        "{P} [loves to bake|is baking] for [a school fair|a street party|the neighbors]",
        given="{P} [baked|made] {a_things}[ before breakfast| in the morning|]",
        groups="{P} baked {k} trays of {things}, with {m} on each tray|"
        "[one|each] tray holds {m_things}, and {P} baked {k} [full |]trays",
        gain="{P} baked {n_more}|{O} [brought|made] {n_more}",
        times="by the evening, the number of {things} {doubled}",
        lose="customers [bought|ordered] {n_of}|{P} [burned|dropped] {n_of}|{O} ate {n_of}",
        adj="sweet plain, large small",
    ),
    _world(  # a harvest
        _THINGS,
        "apple, pear, peach/peaches, pumpkin, lemon, plum, orange, melon, onion, carrot",
        "basket, crate, sack, bucket",
        scene="{P} [has|works on|lives on] a [small |]farm|{P} is [helping with the harvest|"
        "bringing in the harvest]",
        given="{P} [picked|gathered|harvested] {a_things}[ in the morning| on the first day|]",
        gain="{P} [picked|found|gathered] {n_more}|{O} [picked|brought] {n_more}",
        times="by the end of the day, the number of {things} {doubled}",
        lose="{P} sold {n_of}[ at the market|]|{n_of} [were rotten|went bad]|"
        "{O} used {n_of} in a cake",
        adj="ripe green, large small",
    ),
    _world(  # a shop's stock
        _THINGS,
        "mug, candle, kite, lamp, umbrella, hat, puzzle, scarf/scarves, soap bar",
        "box/boxes, crate, case, carton",
        scene="{P} [owns|runs] a [small |little |]shop|{P} [sells|has a stall that sells] {things}",
        given="{P} had {a_things} [in stock|for sale|in the window]",
        gain="{P} ordered {n_more}|a truck delivered {n_more}|{P} found {n_more} in the back room",
        lose="{P} sold {n_of}[ before noon| that day|]|customers bought {n_of}|"
        "{n_of} were [damaged|returned to the maker]",
        adj="red green, plain striped, large small",
    ),
    _world(  # a ride
        _CROWD,
        "passenger",
        "row, car, group",
        "bus, train, ferry, tram",
        ranges={"start": range(5, 21)},
        scene="{P} [runs|travels] [between two towns|along the coast|through the city] every day",
        given="{P} [set off|left|started] with {a_things} on board",
        groups="{P} has {k} rows, and {m_things} sat in each[ of them| row]",
        sum="{x} adults and {y} children were on {P}, all of them {things}",
        gain="{n_more} got on[ at the next stop|]",
        lose="{n_things} got off[ at the next stop|]",
        fraction="{part} of the {things} got off",
        percent="{pct}% of the {things} got off",
        fee="each of the {things} paid {price} for the ride",
        ask_fee="how much did the {things} pay [in all|altogether]",
        ask="how many {things} are on {P} [now|after that]",
        ask_all="how many {things} were on {P} [in all|altogether|in total]",
    ),
    _world(  # a club
        _CROWD,
        "member",
        "team, group",
        "chess club, choir, swim team, drama club, running club, orchestra",
        scene="{P} meets [every week|on Fridays|after school]",
        given="{P} had {a_things}[ in January| at the start of the year|]",
        groups="{P} has {k} groups, and there are {m_things} in each[ group|]",
        sum="{x} girls and {y} boys are {things} of {P}",
        gain="{n_more} joined[ in spring|]",
        lose="{n_things} [left|quit|moved away]",
        fill="the {things} formed teams of {m} for a contest",
        ask_fill="how many teams were there",
        fee="each of the {things} paid {price} for a [trip|shirt]",
        ask_fee="how much money was collected [in all|altogether]",
        ask="how many {things} does {P} have [now|after that]",
        ask_all="how many {things} does {P} have [in all|altogether]",
    ),
    _world(  # a liquid
        {},
        "liter of water/liters of water",
        "bucket, can, barrel",
        "tank, pool, rain barrel, fountain",
        ranges={"start": range(10, 31), "sizes": range(2, 9)},
        scene="{P} [stands in the garden|supplies a farm|was cleaned last week]",
        given="there were {a_things} in {P}[ in the morning|]|{P} held {a_things}",
        groups="a pipe [filled|ran into] {P} for {k} minutes at {m} liters [a|per] minute",
        gain="rain added {n_more}|someone poured in {n_more}",
        lose="{n_things} [leaked out|were used|were pumped out]",
        fraction="{part} of the water was [used|pumped out]",
        percent="{pct}% of the water was [used|pumped out]",
        fill="all the water was [poured|drained] into {crates} of {m} liters each",
        ask_fill="how many {crates} were filled",
        need="{P} holds {t_things} when it is full",
        ask_need="how many more liters [does it take|are needed] to fill {P}",
        pace="from then on, {m_things} were used every day",
        ask_pace="after how many days was {P} empty",
        ask="how many {things} are in {P} [now|after that]",
        ask_all="how many {things} are in {P} now",
    ),
    _world(  # a length
        {},
        _measures("meter", "rope, ribbon, wire, fabric, string"),
        scene="{P} is [fixing up|decorating] [a boat|a tent|a stage|a room]|"
        "{P} [bought supplies|went shopping] for a [project|party]",
        given="{P} had {a_things}|{P} started with {a_things}",
        groups="{P} bought {k} rolls with {m_things} on each[ roll|]",
        gain="{P} [bought|found|got] {n_more}|{O} gave {Po} {n_more}",
        lose="{P} used {n_things}|{P} [sold|gave] {n_things} to {O}",
        keep="{P} kept [only |]{part} of it[ and gave the rest away|]",
        fraction="{P} used {part} of it",
        hand="{P} cut off {k} pieces of {m} meters each and gave them away",
        compare_more="{O} had {n_more} than {Po}",
        compare_times="{O} had {times} as many {things} as {Po}",
        ask_compare="how many {things} did {P} have",
        share="{P} cut all of it into {k} equal pieces",
        ask_share="how many meters long is each piece",
        so_share="[dividing|splitting it] by {b_} gives {eq} per piece",
        fill="{P} cut all of it into pieces that are {m} meters long",
        ask_fill="how many pieces are there",
        need="{P} needs {t_things} for the whole job",
        ask_need="how many more meters does {P} [still |]need",
        sell="{P} sold all of it for {price} a meter",
        ask_sell="how much money did {P} [make|get]",
        ask="how many {things} does {P} have [now|in the end]",
        ask_all="how many {things} did {P} have [in all|in total]",
        ask_left="how many {things} does {P} have left",
    ),
    _world(  # reading
        {},
        "page",
        ranges={"start": range(5, 31), "sizes": range(5, 13), "groups": range(2, 5)},
        scene="{P} is reading a [thick|thrilling|funny] [novel|book about space|mystery]|"
        "{P} borrowed a [long |]book from {O}",
        given="{P} read {a_things} [on Monday|on the first day]",
        groups="{P} read {m_things} [a|each|every] day for {k} days",
        sum="{P} read {x} {things} in the [morning|afternoon] and {y} in the evening",
        gain="{P} read {n_more}[ on the weekend| the next day|]",
        packs="{P} read {m_more} on each of the next {k} days",
        need="the [whole |]book has {t_things}",
        ask_need="how many {things} does {P} still have to read",
        compare_more="{O} read {n_more} than {Po}",
        compare_times="{O} read {times} as many {things} as {Po}",
        compare_part="{O} read {part} as many {things} as {Po}",
        ask_compare="how many {things} did {P} read",
        together="how many {things} did the two of them read [together|in all]",
        gap="{O} read {n_things}[ in that time|]",
        ask_gap="how many more {things} did {P} read than {O}",
        ask="how many {things} has {P} read [so far|in all|by now]",
    ),
    _world(  # a trip
        {},
        "kilometer",
        ranges={"sizes": (4, 5, 8, 10, 15, 20), "groups": range(2, 5)},
        scene="{P} is on a [long |]trip [through the hills|along a river|to the sea]|"
        "{P} set out to [visit {O}|see the coast]",
        given="{P} [covered|traveled] {a_things} on the first day",
        groups="{P} traveled for {k} hours at {m} {things} [per|an] hour|"
        "at {m} {things} [per|an] hour, {P} traveled for {k} hours",
        sum="{P} covered {x} {things} [before|by] noon and {y} [after it|in the afternoon]",
        gain="{P} [covered|traveled] {n_more}[ after a rest| before dark| in the evening|]",
        need="the [whole |entire |]trip is {t_things} long",
        ask_need="how many {things} [are left|does {P} still have to go]",
        fill="the way was marked with a post every {m} {things}, the last one at the end",
        ask_fill="how many posts were there",
        pace="{P} went back all the way at {m} {things} [per|an] hour",
        ask_pace="how many hours did the way back take",
        compare_more="{O} went {n_more} than {Po}",
        compare_times="{O} went {times} as far as {Po}",
        compare_part="{O} went {part} as far as {Po}",
        ask_compare="how many {things} did {P} go",
        ask="how many {things} has {P} [covered|traveled] [in all|so far|by now]",
    ),
    _world(  # savings and wages
        {},
        "dollar",
        ranges={"start": range(5, 31), "sizes": range(3, 11)},
        scene="{P} [is saving up|saves] for [a trip|a bike|a tent|music lessons]|"
        "{P} has a [summer|weekend|new] job",
        given="{P} had {a_things}[ in a jar| in {his} wallet| to begin with|]",
        groups="{P} [saved|earned|set aside] {m_things} [a|each|every] week for {k} weeks|"
        "{P} worked for {k} hours at {m_things} an hour|"
        "{P} [walked|fed] dogs for {k} families, who paid {m_things} each",
        gain="{P} [earned|got] {n_more} for [washing cars|mowing a lawn|babysitting]|"
        "{Ps} [aunt|uncle|grandfather] gave {him} {n_more}",
        lose="{P} spent {n_things} on [a book|a gift|a concert ticket|lunch|a cap]|"
        "{P} [lent|paid back] {n_things} to {O}",
        fraction="{P} spent {part} of the money[ on a gift|]",
        percent="{P} spent {pct}% of the money[ on a gift|]",
        keep="{P} kept [only |]{part} of the money[ and gave the rest to {O}|]",
        packs="{P} [earned|saved] {m_more} in each of the next {k} weeks",
        hand="{P} bought {k} [tickets|books|plants] for {m_things} each",
        compare_more="{O} had {n_more} than {Po}",
        compare_fewer="{O} had {n_fewer} than {Po}",
        compare_times="{O} had {times} as much money as {Po}",
        compare_part="{O} had {part} as much money as {Po}",
        ask_compare="how much money did {P} have",
        together="how much money did [the two of them|{P} and {O}] have [together|in all]",
        gap="{O} had {n_things}",
        ask_gap="how much more money did {P} have than {O}",
        need="{P} wants to buy a [tent|bike|camera|guitar] that costs {t_things}",
        ask_need="how much more money does {P} [still |]need",
        pace="from then on, {P} spent {m_things} every day",
        ask_pace="how many days did the money last",
        share="{P} [shared|divided|split] the money [equally|evenly] among {k} [cousins|friends]",
        ask_share="how much money did each [of them|person] get",
        ask="how much money does {P} have [now|in the end]",
        ask_all="how much money did {P} have [in all|in total]",
        ask_left="how much money does {P} have left|how much of the money is left",
    ),
    _world(  # shopping
        {},
        "dollar",
        ranges={"start": range(5, 31), "sizes": _PRICES},
        next="",
        scene="{P} went [shopping|to the market|to a garage sale][ with {O}|]|"
        "{P} is getting ready for [a party|a camping trip|a school play]",
        given="{P} chose a [jacket|lamp|backpack|board game] that cost {a_things}",
        groups="{P} bought {k} [mugs|caps|plants|tickets|notebooks|sandwiches] for {m} each|"
        "[tickets|plants|sandwiches|puzzles] cost {m} each, and {P} bought {k}[ of them|]",
        sum="{P} bought a [scarf|puzzle|toy] for {x} and a [cap|mug|book] for {y}",
        gain="{P} also bought a [pen|card|magnet|poster] for {n_things}|"
        "wrapping and delivery cost {n_things}",
        so_gain="{fact}, [which makes|for a new total of] {eq}|[that makes|the total is then] {eq}",
        lose="a [coupon|voucher] took {n_things} off the price|{O} paid {n_things} of it",
        so_lose="{fact}, [which leaves|leaving] {eq} to pay|that leaves {eq} to pay",
        percent="[the shop gave {Po} a {pct}% discount|there was a {pct}% discount]",
        so_rest="[taking that off|subtracting that] leaves {eq} to pay",
        change="{P} paid with {t_things}|{P} gave the cashier {t_things}",
        ask_change="how much change did {P} get[ back|]",
        share="{P} and {his} friends, {k} people in all, split the cost equally",
        ask_share="how much did each person pay",
        so_share="[dividing|splitting it] by {b_} gives {eq} per person",
        ask="how much did {P} [pay|spend] in [all|total]",
        ask_left="how much did {P} [pay|have to pay] [in the end|after that]",
    ),
    _world(  # ages
        {},
        "year",
        ranges={"start": range(4, 17)},
        scene="{P} and {O} [live next door to each other|are cousins|sing in the same choir]",
        given="{P} is {a_things} old",
        compare_more="{O} is {n_things} older than {Po}",
        compare_fewer="{O} is {n_things} younger than {Po}",
        compare_times="{O} is {times} as old as {Po}",
        compare_part="{O} is {part} as old as {Po}",
        so_compare="{fact}, so {O} is {eq} old",
        ask_compare="how old is {P}",
        together="what do the ages of [the two|{P} and {O}] add up to",
        later="",
        ask_later="how old will {P} be in {n_things}",
        earlier="",
        ask_earlier="how old was {P} {n_things} ago",
        ask="how old is {P}",
    ),
    _world(  # an area
        {},
        "square meter",
        ranges={"groups": range(2, 10), "sizes": range(2, 10)},
        next="",
        scene="{P} is [planning|laying out] a [garden|vegetable patch|playground|yard]",
        groups="the plot is a rectangle, {k} meters long and {m} meters wide|"
        "the [sides|edges] of the rectangular plot measure {k} meters and {m} meters",
        so_groups="the area is {eq}|length times width [is|gives] {eq}",
        gain="{P} added a [corner|strip] of {n_things}",
        lose="a [pond|shed|path] takes up {n_things}[ of it|]",
        fraction="{part} of the plot is [paved|set aside for trees]",
        share="{P} divided the plot into {k} equal beds",
        ask_share="how many {things} does each bed have",
        so_share="[dividing|splitting it] by {b_} gives {eq} per bed",
        fill="one bag of seed is enough for {m_things}, and {P} wants to sow the whole plot",
        ask_fill="how many bags does {P} need",
        fee="[turf|soil|gravel] for the plot costs {price} per square meter",
        ask_fee="how much does {P} have to pay",
        ask="how many {things} [are left for planting|can be planted]",
        ask_all="what is the area[ of the plot|] in {things}",
    ),
    _world(  # scores
        {},
        "point",
        ranges={"start": range(6, 31)},
        scene="{P} [plays|likes to play] [darts|cards|basketball|a word game] with {O}",
        given="{P} scored {a_things} in the first [game|round]",
        groups="{P} scored {m_things} in each of {k} [games|rounds]",
        sum="{P} scored {x} {things} in one [game|round] and {y} in the next",
        gain="{P} [scored|won] {n_more}[ in a bonus round|]",
        lose="{P} lost {n_things} [for a foul|through a mistake|as a penalty]",
        times="a joker card {doubled} {Ps} score",
        compare_more="{O} scored {n_more} than {Po}",
        compare_times="{O} scored {times} as many {things} as {Po}",
        compare_part="{O} scored {part} as many {things} as {Po}",
        ask_compare="how many {things} did {P} score",
        together="how many {things} did the two of them score [together|in all]",
        gap="{O} scored {n_things}",
        ask_gap="by how many {things} did {P} beat {O}",
        need="{P} needs {t_things} to win",
        ask_need="how many more {things} does {P} [still |]need",
        ask="how many {things} does {P} have [now|in all|in the end]",
    ),
)


# How a step of the solution is put; a world may put it its own way under "so_...".
_STEPS = {
    "groups": "{fact}, [which makes|so that is|for a total of] {eq}|"
    "[multiplying gives|that is] {eq}",
    "sum": "{fact}, [which makes|for a total of] {eq}|[together that makes|adding both gives] {eq}",
    "gain": "{fact}, [which makes|for a new total of] {eq}|"
    "[adding|counting in] {b_} more gives {eq}",
    "lose": "{fact}, which leaves {eq}|{fact}, so {eq} {are} left|taking away {b_} leaves {eq}",
    "rest": "[that leaves|taking that away leaves] {eq}|so {eq} {are} left",
    "part": "{part} of {a_} is {eq}|{fact}, and {part} of {a_} is {eq}",
    "percent": "{pct}% of {a_} is {eq}|{fact}, and {pct}% of {a_} is {eq}",
    "each": "{a_} times {b_} is {eq}|[multiplying first gives|those come to] {eq}",
    "more": "[adding that gives|with those, the total is|that brings the total to] {eq}",
    "times": "multiplying by {b_} gives {eq}|{fact}, which makes {eq}",
    "compare": "{fact}, [so that is|which makes] {eq} for {O}|for {O}, that is {eq}",
    "together": "[together, that makes|adding both gives] {eq}",
    "gap": "the difference is {eq}|comparing the two gives {eq}",
    "share": "[dividing|sharing] by {b_} gives {eq} each|{fact}, which is {eq} each",
    "fill": "dividing by {b_} gives {eq}|{fact}, [and|so] dividing gives {eq}",
    "full": "{q} full {crates} hold {eq}|only {q} {crates} can be filled, which takes {eq}",
    "need": "the goal is {a_}, so {eq} {are} missing|the difference to {a_} is {eq}",
    "pace": "dividing by {b_} gives {eq}|{fact}, [and|so] dividing gives {eq}",
    "sell": "at {price} each, that is {eq}|[multiplying by the price gives|that comes to] {eq}",
    "change": "the change is {eq}|{P} gets back {eq}",
    "age": "that is {eq}|[counting from {a_}|starting at {a_}], that gives {eq}",
}
_MOODS = (
    "it was a [rainy|sunny|windy|cold|warm|quiet|busy] [morning|afternoon|evening|weekend|day]|"
    "it was the [first|last|middle] week of [spring|summer|autumn|winter|the month|the vacation]"
)
_COMPANY = "{O} [was there too|came along that day|had asked about it|dropped by to watch]"
_ASIDES = (
    "it was {d} degrees outside|[breakfast|lunch|the walk home] took {d} minutes|"
    "the nearest [bakery|post office|bus stop] is {d} blocks away|"
    "the radio played {d} [songs|old songs] in a row|the clock on the wall was {d} minutes slow"
)
_NEXT = "|||then |later, |after that, |some time later, "
_PARTS = {2: "half", 3: "a third", 4: "a quarter", 5: "a fifth"}
_TIMES = {2: "twice", 3: "three times", 4: "four times"}
_DOUBLED = {2: "doubled", 3: "tripled"}
_WORDS = {"part": _PARTS, "times": _TIMES, "doubled": _DOUBLED}
_BARE = {"k", "q", "pct"}  # numbers that never count the noun at hand
_ARITHMETIC: dict[str, Callable[[Decimal, Decimal], Decimal]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a / b,
}
_LARGEST = 200  # of all amounts in a story
_MULTIPLE_CHOICE = 0.06


class _Misfit(Exception):
    """A draw does not fit the story so far: a share that is not whole, an amount too large."""


def _spin(rng: random.Random, phrasing: str) -> str:
    """Draw one alternative of every ``[this|that]``, from the inside out."""
    text = f"[{phrasing}]"
    while "[" in text:
        text = re.sub(r"\[([^\[\]]*)\]", lambda match: rng.choice(match[1].split("|")), text)
    return text


def _plain(amount: Decimal) -> str:
    """Write an amount without trailing zeros: 12, 7.5."""
    return f"{amount.normalize():f}"


def _figure(amount: Decimal, money: bool) -> str:
    """Write an amount as a story does: 12, $12, $7.50."""
    if not money:
        return _plain(amount)
    return f"${int(amount)}" if amount == int(amount) else f"${amount:.2f}"


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:]


@dataclass
class _Line:
    """A clause whose slots are all filled but those for its people, who are named when told."""

    text: str
    slots: dict[str, str]
    hero: Hero
    friend: Hero
    happens: bool = False  # an event, which may follow a "then", not a state of things

    def tell(self, named: bool) -> str:
        """Return the clause, with the hero's name or with pronouns."""
        hero = self.hero
        mention = {
            "P": hero.name if named else hero.he,
            "Po": hero.name if named else hero.him,
            "Ps": f"{hero.name}'s" if named else hero.his,
            "him": hero.him,
            "his": hero.his,
            "O": self.friend.name,
        }
        return self.text.format_map(self.slots | mention)


def _tell_all(rng: random.Random, lines: Iterable[_Line]) -> list[str]:
    """Tell clauses in turn, with a pronoun only where it cannot be taken for someone else."""
    told: list[str] = []
    clear: Hero | None = None
    for line in lines:
        told.append(line.tell(named=line.hero is not clear or rng.random() < 0.2))
        if "{O}" in line.text:
            clear = None
        elif "{P" in line.text:
            clear = line.hero
        elif line.hero.he == "it":  # which could now be the weather
            clear = None
    return told


@dataclass
class _Draft:
    """A problem while it is being written: the running amount and what was told and worked."""

    rng: random.Random
    world: World
    hero: Hero
    friend: Hero
    noun: Noun
    words: dict[str, str]  # the slots that stay the same throughout
    value: Decimal = Decimal(0)
    facts: list[_Line] = field(default_factory=list)
    steps: list[_Line] = field(default_factory=list)
    figures: list[Decimal] = field(default_factory=list)  # all numbers of the equations
    question: _Line | None = None

    def line(self, phrasing: str, slots: dict[str, str], happens: bool = False) -> _Line:
        """Draw a wording and tie it to whoever is the hero now."""
        return _Line(_spin(self.rng, phrasing), slots, self.hero, self.friend, happens)

    def slots(self, numbers: Mapping[str, Decimal]) -> dict[str, str]:
        """Return the slots of a phrasing, with each number in its several forms."""
        found = {**self.words, "things": self.noun.many, "thing": self.noun.one}
        for name, number in numbers.items():
            if name in _WORDS:
                found[name] = _WORDS[name][int(number)]
                continue
            money = name == "price" or (self.noun == DOLLAR and name not in _BARE)
            figure, things = _figure(number, money), self.noun.form(number)
            found[name] = figure
            found[f"{name}_things"] = figure if money else f"{figure} {things}"
            found[f"{name}_more"] = f"{figure} more" if money else f"{figure} more {things}"
            found[f"{name}_fewer"] = f"{figure} less" if money else f"{figure} fewer {things}"
            found[f"{name}_of"] = f"{figure} of the {self.noun.many}"
        return found

    def apply(self, operation: "_Operation") -> None:
        """Tell the fact of an operation, work its equations and set the question it leads to.

        Raises:
            _Misfit: no number fits, or a result is too large or not whole.
        """
        numbers: dict[str, Decimal] = {}
        for name, among in operation.draws.items():
            fitting = among(self, numbers)
            if not fitting:
                raise _Misfit
            numbers[name] = Decimal(self.rng.choice(fitting))
        slots = self.slots(numbers)
        if fact := self.world.lines[operation.fact]:
            self.facts.append(self.line(fact, slots, operation.role == "middle"))
        known = {**numbers, "v": self.value}
        if "pct" in known:
            known["pct"] /= 100
        for step, a, sign, b in operation.work:
            known["r"] = self.work(step, known[a], sign, known[b], slots, operation.unit)
        if not operation.work:
            self.value = numbers["a"]
        if operation.fact == "need" and self.rng.random() < 0.4:  # a goal may be told first
            self.facts.insert(0, self.facts.pop())
        ask = operation.ask if operation.ask in self.world.lines else "ask"
        self.question = self.line(self.world.lines[ask], slots)
        if ask == "ask_compare":  # it is about the friend
            self.question.hero, self.question.friend = self.friend, self.hero

    def work(
        self, step: str, a: Decimal, sign: str, b: Decimal, slots: dict[str, str], unit: Noun | None
    ) -> Decimal:
        """Add one equation to the solution and return its result, the new running amount."""
        unit = unit or self.noun
        result = _ARITHMETIC[sign](a, b)
        grain = 100 if unit == DOLLAR else 1
        if not 0 < result <= _LARGEST or result * grain % 1:
            raise _Misfit
        equation = f"{_plain(a)} {sign} {_plain(b)} = {_plain(result)} {unit.form(result)}".rstrip()
        own = {"eq": equation, "a_": _plain(a), "b_": _plain(b)}
        own["are"] = "is" if result == 1 else "are"
        line = self.line(self.world.lines.get(f"so_{step}", _STEPS[step]), slots | own)
        line.text = line.text.replace("{fact}", self.facts[-1].text)
        self.steps.append(line)
        self.figures += [a, b, result]
        self.value = result
        return result


_Draw = Callable[[_Draft, Mapping[str, Decimal]], Sequence[int | Decimal]]


@dataclass(frozen=True)
class _Operation:
    """One thing that can happen in a story, with the numbers it draws and the equations it takes.

    Equations are (phrasing in `_STEPS`, left, sign, right) over the names of the drawn numbers,
    v for the running amount at first and r for the last result.
    """

    fact: str
    role: str  # "start", "middle" or "end"
    work: tuple[tuple[str, ...], ...]  # four words each
    ask: str
    unit: Noun | None  # what the result counts, where it is not what was counted so far
    draws: dict[str, _Draw]

    def follows(self, last: str, world: World, left: int) -> bool:
        """Tell whether it can come next, with so many steps left to fill."""
        fits = len(self.work) == left if self.role == "end" else len(self.work) <= left
        started = (self.role != "start") == bool(last)
        asked = self.role != "end" or self.ask in world.lines
        return fits and started and asked and self.fact != last and self.fact in world.lines


def _operation(
    fact: str, role: str, work: str, ask: str = "", unit: Noun | None = None, **draws: _Draw
) -> _Operation:
    """Read an operation from a row of the table; equations are like "part v / k; rest v - r"."""
    equations = tuple(tuple(row.split()) for row in work.split(";") if row)
    return _Operation(fact, role, equations, ask or f"ask_{fact}", unit, draws)


def _small(d: _Draft, limit: int = _LARGEST) -> range:
    """Return what may be added or taken away: mostly small numbers, of 2 or more."""
    return range(2, min(9 if d.rng.random() < 0.8 else 20, limit - 1) + 1)


def _start(d: _Draft, _: Mapping[str, Decimal]) -> Sequence[int]:
    return d.world.start


def _gained(d: _Draft, _: Mapping[str, Decimal]) -> Sequence[int]:
    return _small(d)


def _lost(d: _Draft, _: Mapping[str, Decimal]) -> Sequence[int]:
    return _small(d, int(d.value))


def _price(d: _Draft, _: Mapping[str, Decimal]) -> Sequence[int | Decimal]:
    return _PRICES if d.value <= 20 else range(2, 10)


def _any(among: Iterable[int | Decimal]) -> _Draw:
    """Return a draw of any of the numbers."""
    return lambda d, _: list(among)


def _divisor(among: Iterable[int]) -> _Draw:
    """Return a draw of the numbers that divide the running amount into two or more."""
    return lambda d, _: [n for n in among if d.value % n == 0 and d.value > n]


_FEW, _SOME = _any(range(2, 6)), _any(range(2, 11))
_OTHER = Noun("", "")  # boxes or days: the question names them, the equation need not
_COMPARISONS: dict[str, tuple[str, dict[str, _Draw]]] = {
    "compare_more": ("compare v + n", {"n": _gained}),
    "compare_fewer": ("compare v - n", {"n": _lost}),
    "compare_times": ("compare v * times", {"times": _any(_TIMES)}),
    "compare_part": ("compare v / part", {"part": _divisor((2, 3, 4))}),
}
_OPERATIONS = [
    _operation("given", "start", "", "ask_all", a=_start),
    _operation(
        "groups",
        "start",
        "groups k * m",
        "ask_all",
        k=lambda d, _: d.world.groups,
        m=lambda d, _: d.world.sizes,
    ),
    _operation("dozens", "start", "groups k * m", "ask_all", k=_any(range(2, 9)), m=_any([12])),
    _operation("sum", "start", "sum x + y", "ask_all", x=_start, y=_start),
    _operation("gain", "middle", "gain v + n", "ask", n=_gained),
    _operation("lose", "middle", "lose v - n", "ask_left", n=_lost),
    _operation("times", "middle", "times v * doubled", "ask", doubled=_any(_DOUBLED)),
    _operation("keep", "middle", "part v / part", "ask_left", part=_divisor(_PARTS)),
    _operation(
        "fraction", "middle", "part v / part; rest v - r", "ask_left", part=_divisor(_PARTS)
    ),
    _operation(
        "percent", "middle", "percent v * pct; rest v - r", "ask_left", pct=_any((10, 20, 25, 50))
    ),
    _operation("packs", "middle", "each k * m; more v + r", "ask", k=_FEW, m=_SOME),
    _operation("hand", "middle", "each k * m; rest v - r", "ask_left", k=_FEW, m=_SOME),
    _operation("gap", "end", "gap v - n", n=_lost),
    _operation("share", "end", "share v / k", k=_divisor(range(3, 11))),
    _operation("fill", "end", "fill v / m", unit=_OTHER, m=_divisor(range(2, 13))),
    _operation("pace", "end", "pace v / m", unit=_OTHER, m=_divisor(range(2, 13))),
    _operation(
        "spare",
        "end",
        "full q * m; rest v - r",
        m=lambda d, _: [m for m in range(3, 13) if d.value % m and d.value > 2 * m],
        q=lambda d, drawn: [d.value // drawn["m"]],
    ),
    _operation("need", "end", "need t - v", t=lambda d, _: [d.value + n for n in _small(d)]),
    _operation("sell", "end", "sell v * price", unit=DOLLAR, price=_price),
    _operation("fee", "end", "sell v * price", unit=DOLLAR, price=_price),
    _operation(
        "change",
        "end",
        "change t - v",
        t=lambda d, _: [bill for bill in (10, 20, 50, 100, 200) if d.value < bill <= 5 * d.value],
    ),
    _operation("later", "end", "age v + n", n=_gained),
    _operation("earlier", "end", "age v - n", n=_lost),
]
for _way, (_work, _draws) in _COMPARISONS.items():
    _OPERATIONS += [
        _operation(_way, "end", _work, "ask_compare", None, **_draws),
        _operation(_way, "end", f"{_work}; together v + r", "together", None, **_draws),
    ]


def _write(rng: random.Random, steps: int) -> _Draft:
    """Draw a problem of exactly so many steps, or raise `_Misfit`."""
    world = rng.choice(WORLDS)
    hero, friend = rng.sample(PEOPLE, 2)
    if world.places:
        hero = Hero(rng.choice(world.places))
    box, crate = rng.sample(world.boxes, 2)
    adj, adj2 = rng.choice(world.lines.get("adj", "old new").split(", ")).split()
    words = {"box": box.one, "boxes": box.many, "crate": crate.one, "crates": crate.many}
    words |= {"adj": adj, "adj2": adj2}
    draft = _Draft(rng, world, hero, friend, rng.choice(world.nouns), words)
    last, left = "", steps
    while left or not last:
        possible = [each for each in _OPERATIONS if each.follows(last, world, left)]
        if not possible:
            raise _Misfit
        operation = rng.choice(possible)
        draft.apply(operation)
        last, left = operation.fact, left - len(operation.work)
    return draft


def _instruction(d: _Draft) -> str:
    """Tell the story of a draft, ending with its question."""
    rng, facts = d.rng, d.facts
    opening = [d.line(d.world.lines["scene"], d.slots({}))] if rng.random() < 0.9 else []
    if rng.random() < 0.1:
        opening.insert(rng.randrange(len(opening) + 1), d.line(_MOODS, {}))
    elif opening and not d.world.places and "{O}" not in opening[0].text and rng.random() < 0.5:
        opening.append(d.line(_COMPANY, {}))
    if rng.random() < 0.05:
        opening.append(d.line(_ASIDES, {"d": str(rng.randint(5, 11))}))
    assert d.question is not None  # `_write` ends a draft with one
    *told, question = _tell_all(rng, [*opening, *facts, d.question])
    sentences, follow = told[: len(opening)], d.world.lines.get("next", _NEXT)
    for fact, clause in zip(facts, told[len(opening) :], strict=True):
        free = fact.happens and "," not in clause and follow
        if free and fact is facts[-1] and rng.random() < 0.3:
            question = f"if {clause}, {question}"
        elif free and rng.random() < 0.2 and not re.search(r"and |,", sentences[-1]):
            sentences[-1] += f", and then {clause}"
        else:
            sentences.append(_spin(rng, follow) + clause if free else clause)
    return " ".join([_sentence(text) + "." for text in sentences] + [_sentence(question) + "?"])


def _solution(d: _Draft) -> str:
    """Tell the worked steps of a draft, one sentence each."""
    lines = d.steps
    if len(d.facts) > 1 and len(d.steps) < 3 and d.rng.random() < 0.3:
        lines = d.facts[: len(d.facts) - len(d.steps)] + lines
    return " ".join(_sentence(text) + "." for text in _tell_all(d.rng, lines))


def _choices(d: _Draft) -> tuple[str, str]:
    """Return five options in one line, one of them right, and the letter of that one."""
    near = [d.value + n for n in (-10, -5, -4, -3, -2, -1, 1, 2, 3, 4, 5, 10)]
    wrong = [n for n in dict.fromkeys(d.figures + near) if n >= 1 and n != d.value]
    options = [*d.rng.sample(wrong, 4), d.value]
    d.rng.shuffle(options)
    text = " ".join(f"{name}) {_plain(n)}" for name, n in zip("ABCDE", options, strict=True))
    return text, "ABCDE"[options.index(d.value)]


def _row(rng: random.Random, steps: int) -> dict[str, str]:
    """Draw one row of so many steps, or raise `_Misfit` if it comes out too short or too long."""
    draft = _write(rng, steps)
    instruction, output = _instruction(draft), _solution(draft)
    said, answer = _plain(draft.value), str(float(draft.value))
    if rng.random() < _MULTIPLE_CHOICE:
        options, letter = _choices(draft)
        instruction += f" {options}"
        output += f" {_spin(rng, 'option|choice').capitalize()} {letter} says {said}."
        said = answer = letter
    output += f" The answer is {said}."
    if not 60 <= len(instruction) <= 400 or len(output) > 300:
        raise _Misfit
    return {"instruction": instruction, "input": "", "output": output, "answer": answer}


def generate(rows: int, seed: int) -> list[dict[str, str]]:
    """Draw word problems in the columns of Math10K.

    Args:
        rows: How many to draw.
        seed: What the draw depends on; the same `rows` and `seed` give the same list everywhere.

    Returns:
        Rows of instruction (the question), input (always empty), output (the worked solution, which
        ends "The answer is ...") and answer (a number such as "12.0", or the letter of the right
        option in multiple choice). No two instructions are the same.

    Raises:
        ValueError: `rows` is negative.
    """
    if rows < 0:
        raise ValueError(f"The number of rows must not be negative, and it is {rows}.")
    rng = random.Random(seed)
    seen: set[str] = set()
    found: list[dict[str, str]] = []
    while len(found) < rows:
        steps = rng.choices((1, 2, 3, 4), (65, 25, 8, 2))[0]
        row = None
        while row is None or row["instruction"] in seen:  # `steps` stays, to keep the shares above
            with suppress(_Misfit):
                row = _row(rng, steps)
        seen.add(row["instruction"])
        found.append(row)
    return found
