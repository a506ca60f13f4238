"""Random English sentences: digits, numbers, times, dates, assistant commands, conversation.

Every number is spelled out, so that the text is exactly what a synthesiser says. Other languages
are in phrases.py. `python grammar.py 20` prints twenty sentences.
"""

from __future__ import annotations

import hashlib
import random
import re
import sys

from lexicon import (
    ACTIONS,
    ADJECTIVES,
    CITIES,
    COLOURS,
    COUNTRIES,
    DEVICES,
    FEELINGS,
    ITEMS,
    JOBS,
    MUSIC,
    NAMES,
    OBJECTS,
    OPINIONS,
    PARTS,
    PAST,
    PLACES,
    RELATIVES,
    ROOMS,
    SMALL_TALK,
    STREETS,
    SURNAMES,
    words,
)

ONES = words("zero one two three four five six seven eight nine")
TEENS = words("ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen")
TENS = words("twenty thirty forty fifty sixty seventy eighty ninety")
ORDINALS = words(
    "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth "
    "thirteenth fourteenth fifteenth sixteenth seventeenth eighteenth nineteenth twentieth"
)
ORDINALS += [f"twenty {o}" for o in ORDINALS[:9]] + ["thirtieth", "thirty first"]
DAYS = words("Monday Tuesday Wednesday Thursday Friday Saturday Sunday")
MONTHS = words(
    "January February March April May June July August September October November December"
)
LETTERS = words("A B C D E F G H J K L M N P Q R S T U V W X Y Z")


def number(n: int) -> str:
    """Spell out 0 <= n <= 999,999."""
    if n < 10:
        return ONES[n]
    if n < 20:
        return TEENS[n - 10]
    if n < 100:
        return TENS[n // 10 - 2] + (f" {ONES[n % 10]}" if n % 10 else "")
    if n < 1000:
        rest = f" and {number(n % 100)}" if n % 100 else ""
        return f"{ONES[n // 100]} hundred{rest}"
    rest = n % 1000
    joint = " and " if 0 < rest < 100 else " "
    return f"{number(n // 1000)} thousand{joint + number(rest) if rest else ''}"


def year(n: int) -> str:
    """Spell out a year from 1100 to 2099."""
    if n % 100 == 0:
        return f"{number(n // 100)} hundred" if n != 2000 else "two thousand"
    if 2000 < n < 2010:
        return f"two thousand and {number(n % 100)}"
    tail = f"oh {number(n % 100)}" if n % 100 < 10 else number(n % 100)
    return f"{number(n // 100)} {tail}"


class Grammar:
    """Random sentences; the same `rng` state gives the same sentence."""

    def __init__(self, rng: random.Random):
        self.rng = rng

    def pick(self, options: list[str]) -> str:
        return self.rng.choice(options)

    def digits(self) -> str:
        def group(size: int) -> str:
            return " ".join(self.pick(ONES) for _ in range(size))

        return self.pick([group(3), group(4), group(5), f"{group(3)}, {group(4)}",
                          f"{group(3)}, {group(3)}, {group(4)}"])  # fmt: skip

    def small(self) -> str:
        return number(self.rng.randint(2, 60))

    def number(self) -> str:
        return number(self.rng.randint(0, self.rng.choice([20, 99, 99, 999, 9999, 999999])))

    def decimal(self) -> str:
        places = " ".join(self.pick(ONES) for _ in range(self.rng.randint(1, 2)))
        return f"{number(self.rng.randint(0, 99))} point {places}"

    def year(self) -> str:
        return year(self.rng.randint(1750, 2060))

    def time(self) -> str:
        hour = number(self.rng.randint(1, 12))
        minute = number(self.rng.randint(10, 59))
        half = self.pick(["in the morning", "in the evening", "at night", "in the afternoon"])
        return self.pick([
            f"{hour} {minute}", f"{hour} {minute}", f"{hour} o'clock", f"half past {hour}",
            f"quarter past {hour}", f"quarter to {hour}", f"{number(5)} past {hour}",
            f"twenty to {hour}", f"ten past {hour}", f"{hour} {half}", f"{hour} {minute} {half}",
        ])  # fmt: skip

    def date(self) -> str:
        day, month = self.pick(ORDINALS), self.pick(MONTHS)
        end = self.rng.choice(["", "", f" {self.year()}"])
        return self.pick([f"the {day} of {month}", f"{month} {day}", f"{month} the {day}"]) + end

    def when(self) -> str:
        return self.pick([
            f"on {self.pick(DAYS)}", f"on {self.date()}", f"at {self.time()}", self.pick(PARTS),
            f"on {self.pick(DAYS)} at {self.time()}", f"next {self.pick(DAYS)}",
            f"in {self.span()}", self.pick(PARTS),
        ])  # fmt: skip

    def span(self) -> str:
        units = words("minutes hours seconds days weeks months years")
        return f"{self.small()} {self.pick(units)}"

    def person(self) -> str:
        name, surname = self.pick(NAMES), self.pick(SURNAMES)
        return self.pick([name, name, f"{name} {surname}", f"my {self.pick(RELATIVES)}"])

    def thing(self) -> str:
        """A noun phrase with its article."""
        noun, quality = self.pick(OBJECTS), self.pick(ADJECTIVES)
        owner = self.pick(["the", "my", "your", "his", "her", "our", "their", "this", "that"])
        return f"{owner} {self.pick([noun, f'{quality} {noun}', f'{quality} {noun}'])}"

    def figures(self) -> str:
        """Digits, numbers, times and dates."""
        name, money = self.pick(NAMES), self.pick(["dollars", "euros", "pounds"])
        return self.pick([
            self.digits(), self.digits(), f"Call {self.digits()}", f"My number is {self.digits()}",
            f"The code is {self.digits()}", f"{name}'s number is {self.digits()}",
            f"The flight number is {self.pick(LETTERS)} {self.pick(LETTERS)} {self.digits()}",
            self.number(), f"{self.number()}, {self.number()}, {self.number()}",
            f"Page {self.number()}", f"Chapter {self.small()}", f"The answer is {self.number()}",
            f"Room {self.number()}", f"It costs {self.number()} {money}",
            f"That will be {self.small()} {money} and {self.small()} cents",
            f"The {self.pick(OBJECTS)} costs {self.number()} {money}",
            f"{self.number()} {self.pick(['plus', 'minus', 'times'])} {self.number()}",
            f"{self.small()} percent of {self.number()} people", f"About {self.small()} percent",
            f"The result is {self.decimal()}", f"It weighs {self.decimal()} kilograms",
            f"It is {self.decimal()} miles long", f"It is {self.number()} metres high",
            f"It is {self.time()}", f"The time is {self.time()}",
            f"The {self.pick(['train', 'bus', 'plane', 'ferry'])} leaves at {self.time()}",
            f"The {self.pick(PLACES)} closes at {self.time()}", f"Wake me up at {self.time()}",
            f"Today is {self.pick(DAYS)}, {self.date()}", f"Today is {self.date()}",
            f"{name}'s birthday is on {self.date()}", f"The meeting is {self.when()}",
            f"{name} was born on {self.date()}", f"{name} was born in {self.year()}",
            f"In {self.year()} {name} moved to {self.pick(CITIES)}",
            f"I live at {self.number()} {self.pick(STREETS)} Street",
            f"She is {self.small()} years old", f"Her address is {self.small()} "
            f"{self.pick(STREETS)} Road, {self.pick(CITIES)}",
            f"The score was {number(self.rng.randint(0, 9))} to {number(self.rng.randint(0, 9))}",
            f"{name} finished in {self.pick(ORDINALS)} place",
            f"Turn to channel {number(self.rng.randint(1, 99))}",
        ])  # fmt: skip

    def command(self) -> str:
        """Things said to a voice assistant."""
        name, city, room = self.pick(NAMES), self.pick(CITIES), self.pick(ROOMS)
        device, item, other = self.pick(DEVICES), self.pick(ITEMS), self.pick(ITEMS)
        onoff = self.pick(["on", "off"])
        return self.pick([
            f"Set a timer for {self.span()}", f"Set an alarm for {self.time()}",
            f"Turn {onoff} the {device} in the {room}", f"Turn {onoff} the {room} {device}",
            f"Turn the {device} {onoff}, please", f"Make the {room} {self.pick(COLOURS)}",
            f"Set the {room} to {self.small()} degrees", f"Play {self.pick(MUSIC)}",
            f"Play {self.pick(MUSIC)} in the {room}", f"Dim the lights in the {room}",
            f"Turn {self.pick(['up', 'down'])} the {self.pick(['music', 'volume', 'heating'])}",
            f"{self.pick(['Stop', 'Start', 'Pause'])} the {self.pick(['music', 'timer', 'film'])}",
            f"What is the weather in {city}?", f"What is the weather like in {city} {self.when()}?",
            f"Will it {self.pick(['rain', 'snow', 'be sunny'])} in {city} {self.when()}?",
            f"It will be {self.small()} degrees in {city} {self.when()}", "What time is it?",
            f"What time is it in {city}?", "What is the date today?", f"Call {self.person()}",
            f"Call {name} {self.when()}", f"Send a message to {self.person()}",
            f"Tell {self.person()} that I will be there at {self.time()}",
            f"Tell {name} that I am {self.pick(FEELINGS)}", f"Email {name} about the meeting",
            f"Remind me to call {self.person()} {self.when()}", f"Meet {name} in {city}",
            f"Remind me to {self.pick(ACTIONS)} {self.when()}",
            f"Where is my {self.pick(OBJECTS)}?",
            f"Add {item} and {other} to my list", f"Add {item}, {other} and {self.pick(ITEMS)}",
            f"Remind me to buy {item} {self.when()}", f"Is there any {item} left?",
            f"Please open the {room} {self.pick(['door', 'window', 'blinds', 'curtains'])}",
            f"Close the {self.pick(['door', 'window', 'garage door'])} in the {room}",
            f"Book a table for {number(self.rng.randint(2, 9))} {self.when()}",
            f"Book a {self.pick(['train', 'flight', 'hotel', 'room'])} to {city} {self.when()}",
            f"How far is it to {city}?", f"How do I get to the {self.pick(PLACES)}?",
            f"Take me to the nearest {self.pick(PLACES)}", f"It is {self.number()} miles to {city}",
            f"Cancel my appointment {self.when()}", f"What is the capital of "
            f"{self.pick(COUNTRIES)}?", f"How do you say {self.pick(OBJECTS)} in French?",
            f"Who is {name} {self.pick(SURNAMES)}?", f"Search for {self.pick(ADJECTIVES)} "
            f"hotels in {city}", f"Read me the news from {self.pick(COUNTRIES)}",
        ])  # fmt: skip

    def everyday(self) -> str:
        """Conversation and small stories."""
        name, place, action = self.person(), self.pick(PLACES), self.pick(ACTIONS)
        city, feeling, thing = self.pick(CITIES), self.pick(FEELINGS), self.thing()
        job, who = self.pick(JOBS), self.pick(["he", "she"])
        place = f"the {place}"
        verb = self.pick(["lost", "found", "bought", "sold", "forgot", "broke", "left", "painted",
                          "cleaned", "borrowed", "repaired", "opened", "dropped"])  # fmt: skip
        plural = self.pick(
            ["The children", "My parents", "We", "They", "Many people", "Our friends"]
        )
        must = self.pick(["should", "must", "could", "can't", "would like to", "want to",
                          "have to", "will", "won't", "might", "used to", "tried to",
                          "forgot to"])  # fmt: skip
        return self.pick([
            self.pick(SMALL_TALK), f"{plural} {must} {action}", f"I {must} {action} {self.when()}",
            f"{name} {verb} {thing} {self.pick(PAST)}", f"I {verb} {thing} at {place}",
            f"{self.pick(OPINIONS)} {who} is {feeling}",
            f"{self.pick(OPINIONS)} we should {action}",
            f"{name} is a {self.pick(ADJECTIVES)} {job}",
            f"{name} works as a {job} in {city}",
            f"{name} wants to become a {job}", f"Are you {feeling}?", f"Why are you so {feeling}?",
            f"I am {feeling} because I {verb} {thing}", f"Do you want to {action} with {name}?",
            f"Would you like to {action} {self.when()}?", f"Where did you {action}?",
            f"Let's {action} before we go to {place}", f"Don't forget to {action}",
            f"If it rains {self.when()}, we will stay at {place}", f"Who {verb} {thing}?",
            f"When I was in {city}, I {verb} {thing}", f"Is {thing} {self.pick(ADJECTIVES)}?",
            f"{thing} is more {self.pick(['useful', 'expensive', 'beautiful'])} than "
            f"{self.thing()}", f"{thing} is in front of {place}",
            f"There is a {self.pick(OBJECTS)} under {thing}",
            f"I have never been to {self.pick(COUNTRIES)}", f"{name} comes from "
            f"{self.pick(COUNTRIES)}", f"We went from {city} to {self.pick(CITIES)} by train",
            f"{name} met {self.person()} at {place} {self.pick(PAST)}",
            f"My {self.pick(RELATIVES)} and my {self.pick(RELATIVES)} are {feeling}",
            f"Can you give {thing} to {name}?", f"How long does it take to {action}?",
            f"We need {self.pick(ITEMS)}, {self.pick(ITEMS)} and some {self.pick(ITEMS)}",
            f"I prefer {self.pick(ITEMS)} to {self.pick(ITEMS)}", f"{name}, come here",
            f"Good {self.pick(['morning', 'evening', 'afternoon', 'night'])}, {self.pick(NAMES)}",
            f"Thank you for {thing}, {self.pick(NAMES)}", f"What did {name} say about {thing}?",
            f"The {self.pick(COLOURS)} {self.pick(OBJECTS)} belongs to {name}",
            f"Please put {thing} on {self.thing()}", f"My name is {self.pick(NAMES)} "
            f"{self.pick(SURNAMES)}", f"Everyone at {place} was {feeling} {self.pick(PAST)}",
        ])  # fmt: skip

    def sentence(self) -> str:
        """One sentence with a capital and a final mark."""
        text = self.rng.choice([self.figures, self.command, self.everyday])()
        text = re.sub(r"\ba (?=[aeio]|un|ug)", "an ", text)
        text = text[0].upper() + text[1:]
        return text if text[-1] in ".?!" else text + "."


def random_sentence(language: str, rng: random.Random) -> str:
    """A sentence of a language's grammar."""
    if language == "en":
        return Grammar(rng).sentence()
    from phrases import phrase  # needs num2words, which only the synthesis' environment has

    return phrase(language, rng)


def is_held_out(text: str) -> bool:
    """True for a fixed, random twentieth of all sentences: never trained on."""
    return int(hashlib.sha1(text.encode()).hexdigest()[:8], 16) % 20 == 0


if __name__ == "__main__":
    grammar = Grammar(random.Random(1))
    for _ in range(int(sys.argv[1]) if len(sys.argv) > 1 else 20):
        print(grammar.sentence())
