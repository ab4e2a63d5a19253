"""The closed little world `lite` lives in: who works where, what it costs, how people ask and are answered.

Pure text, lower case, no punctuation, seeded by `random.Random`. Many facts, few sentences: the model has to
copy a name, a price or an hour out of its role text, so those combine freely while the templates stay few.
One in ten (item, price) and (name, company) pairs, and three phrasings a question, are held out for testing.

    rng = random.Random(0)
    facts = make_facts(rng, "train")
    role_text(facts, rng)                   # you are anna and you work at sunny bakery we open at eight ...
    question("price", rng, "train", "bread")             # how much does the bread cost
    answer("price", facts, "bread")                      # the bread costs four dollars
"""
from dataclasses import dataclass
from functools import cache
from random import Random
from zlib import crc32

BUSINESSES = {
    "bakery": ["bread", "cake", "muffin", "pretzel"],
    "bike shop": ["helmet", "basket", "tire", "saddle"],
    "book shop": ["novel", "atlas", "magazine", "diary"],
    "flower shop": ["rose", "tulip", "orchid", "lily"],
    "coffee house": ["espresso", "sandwich", "lemonade", "cocoa"],
    "hotel": ["room", "breakfast", "sauna"],
    "car wash": ["polish", "vacuum", "wax"],
    "pet shop": ["hamster", "parrot", "goldfish", "collar"],
    "barber": ["haircut", "shave", "wig"],
    "pharmacy": ["aspirin", "bandage", "syrup", "toothbrush"],
    "garden center": ["shovel", "cactus", "fountain", "ladder"],
    "toy store": ["puzzle", "robot", "kite", "drum"],
}
ITEMS = [item for items in BUSINESSES.values() for item in items]
ADJECTIVES = ["sunny", "golden", "river", "happy", "silver", "royal", "corner", "green", "ocean",
              "village", "diamond", "maple"]
COMPANIES = [f"{adjective} {business}" for business in BUSINESSES for adjective in ADJECTIVES]
NAMES = ["anna", "peter", "oscar", "julia", "victor", "sophie", "david", "linda", "thomas", "grace",
         "kevin", "rachel", "bruno", "emily", "hugo", "vanessa"]
PRICES = ["two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
          "fifteen", "twenty", "thirty", "forty", "fifty"]
OPENS = ["six", "seven", "eight", "nine", "ten", "eleven"]
CLOSES = ["two", "three", "four", "five", "six", "seven", "eight", "nine"]
KINDS = ["open", "close", "price", "name", "company", "unknown", "greeting", "thanks", "bye"]

# What the user says: (training phrasings, held-out phrasings made of words the training phrasings know).
QUESTIONS = {
    "open": (
        ["when do you open", "what time do you open", "at what time do you open", "how early do you open",
         "when do you open in the morning", "can you tell me when you open",
         "could you tell me what time you open", "what are your opening hours in the morning",
         "i would like to know when you open", "when can i come in the morning"],
        ["tell me when you open please", "can you tell me how early you open",
         "do you know what time you open"]),
    "close": (
        ["when do you close", "what time do you close", "at what time do you close", "how late are you open",
         "how late can i come", "can you tell me when you close", "could you tell me what time you close",
         "until when are you open", "i would like to know when you close", "when do you close today"],
        ["tell me when you close please", "can you tell me how late you are open",
         "until what time are you open"]),
    "price": (
        ["how much is the {item}", "how much does the {item} cost", "what does the {item} cost",
         "what is the price of the {item}", "can you tell me the price of the {item}",
         "how much do i pay for the {item}", "how much do you want for the {item}",
         "i would like to buy the {item} how much is it", "could you tell me what the {item} costs",
         "and how much is the {item} please"],
        ["tell me the price of the {item} please", "what do i pay for the {item}",
         "i would like to know how much the {item} costs"]),
    "name": (
        ["what is your name", "who are you", "may i ask your name", "can you tell me your name",
         "who am i talking to", "could you tell me who you are", "and what is your name",
         "i would like to know your name", "what do they call you"],
        ["tell me your name please", "may i ask who you are", "may i ask who i am talking to"]),
    "company": (
        ["what company is this", "which company am i talking to", "where do you work",
         "what is the name of the company",
         "can you tell me the name of the company", "which shop is this", "could you tell me where you work",
         "what is the name of your shop", "where am i calling"],
        ["may i ask where you work", "tell me the name of your company please",
         "which company do you work for"]),
    "unknown": (
        ["what is your phone number", "what is your address", "do you have a parking lot",
         "is there a bus stop near you",
         "who is your boss", "can i pay with a card", "do you have a web page", "how old are you",
         "can you tell me your address", "could you tell me the phone number", "how is the weather today",
         "what is your email address"],
        ["tell me your phone number please", "may i ask your address", "do you know how the weather is"]),
    "greeting": (
        ["hello", "hi there", "good morning", "hello good morning", "hello can you hear me", "good evening",
         "hi how are you", "hello is there anyone", "hello there"],
        ["good morning can you hear me", "hi good morning", "hello how are you today"]),
    "thanks": (
        ["thank you", "thanks a lot", "thank you very much", "great thank you", "okay thanks",
         "thanks for your help", "thank you that is all", "wonderful thanks"],
        ["great thanks a lot", "okay thank you very much", "thank you for your help"]),
    "bye": (
        ["bye", "goodbye", "bye bye", "see you later", "okay goodbye", "goodbye and have a nice day",
         "i have to go now bye", "have a nice day", "see you soon"],
        ["okay bye see you later", "goodbye see you soon", "okay i have to go now"]),
}

# The same, asked indirectly: any of ASKING before any of these.
ASKING = ["can you tell me", "could you tell me", "i would like to know", "please tell me", "do you know"]
INDIRECT = {
    "open": ["when you open", "what time you open", "how early you open", "when i can come in the morning"],
    "close": ["when you close", "what time you close", "how late you are open", "until when you are open"],
    "price": ["what the {item} costs", "how much the {item} costs", "how much i pay for the {item}",
              "the price of the {item}"],
    "name": ["your name", "who you are", "what your name is", "who i am talking to"],
    "company": ["where you work", "which company this is", "the name of your shop", "what company this is"],
    "unknown": ["your phone number", "your address", "how the weather is today", "how old you are"],
}

ANSWERS = {
    "open": "we open at {opens} in the morning",
    "close": "we close at {closes} in the {daytime}",
    "price": "the {item} costs {price} dollars",
    "name": "my name is {name}",
    "company": "this is {company}",
    "unknown": "sorry i do not know that",
    "greeting": "hello this is {name} from {company} how can i help you",
    "thanks": "you are welcome",
    "bye": "goodbye have a nice day",
}

ROLES = [
    "you are {name} and you work at {company} {hours} {prices}",
    "you work at {company} and your name is {name} {prices} {hours}",
    "your name is {name} from {company} {hours} {prices}",
]
HOURS = ["we open at {opens} and close at {closes}", "we close at {closes} and open at {opens}"]

# A voice prompt may say anything: these take 1.5 to 3 seconds and give no fact away.
VOICE_SENTENCES = [
    "the garden is quiet in the early morning", "we walked along the river until it was dark",
    "my brother plays the piano every evening", "the old train goes slowly over the bridge",
    "there is fresh snow on the mountains today", "she reads a letter from her best friend",
    "the children are running across the yard", "a warm wind blows over the yellow field",
    "he always drinks his tea without any sugar", "the moon was bright above the small harbor",
    "yesterday i found a blue stone on the beach", "the kitchen smells of apples and cinnamon",
]


@dataclass(frozen=True)
class Facts:
    """What one agent knows; prices: item -> price word, in the order of the role text."""
    name: str
    company: str
    opens: str
    closes: str
    prices: dict

    @property
    def business(self):
        return self.company.split(" ", 1)[1]


def held_out(anchor, choice, choices):
    """Whether the pair belongs to the test split: every tenth choice, from a stable place for each anchor."""
    return (crc32(anchor.encode()) + choices.index(choice)) % 10 == 0


def choices_for(anchor, choices, split):
    """The members of `choices` that may go together with `anchor` in this split; never empty."""
    return [choice for choice in choices if held_out(anchor, choice, choices) == (split == "test")]


def make_facts(rng, split="train"):
    """Draw an agent: every (name, company) and (item, price) pair belongs to `split`."""
    company = rng.choice(COMPANIES)
    items = BUSINESSES[company.split(" ", 1)[1]]
    items = rng.sample(items, rng.choice([2, 3]))
    prices = {item: rng.choice(choices_for(item, PRICES, split)) for item in items}
    name = rng.choice(choices_for(company, NAMES, split))
    return Facts(name, company, rng.choice(OPENS), rng.choice(CLOSES), prices)


def role_text(facts, rng):
    """What the agent is told before the call."""
    hours = rng.choice(HOURS).format(opens=facts.opens, closes=facts.closes)
    prices = " ".join(f"{item} costs {price} dollars" for item, price in facts.prices.items())
    return rng.choice(ROLES).format(name=facts.name, company=facts.company, hours=hours, prices=prices)


@cache
def phrasings(kind, split="train"):
    """The sentences a user has for `kind`; test users only use the held-out ones, training users never do.

    Training users also ask indirectly ("could you tell me ..."), and begin or end with a small word.
    """
    known, held = QUESTIONS[kind]
    if split == "test":
        return held
    indirect = [f"{ask} {what}" for ask in ASKING for what in INDIRECT.get(kind, [])]
    plain = [*known, *indirect]
    dressed = [f"{before} {text}" for text in plain for before in ("hello", "okay", "and", "hi")]
    dressed += [f"{text} please" for text in plain]
    if kind not in INDIRECT:
        return known
    return sorted(text for text in {*plain, *dressed} if not any(h in text for h in held))


def question(kind, rng, split="train", item=None):
    """What the user says. An unknown fact with an item is a price question nobody can answer."""
    if kind == "unknown" and item:
        kind = "price"
    return rng.choice(phrasings(kind, split)).format(item=item)


def unknown_item(facts, rng):
    """An item that the role text does not price."""
    return rng.choice([item for item in ITEMS if item not in facts.prices])


def answer(kind, facts, item=None):
    """What the agent says. A price that the role does not hold is not known."""
    if kind == "price" and item not in facts.prices:
        kind = "unknown"
    daytime = "afternoon" if facts.closes in ("two", "three", "four", "five") else "evening"
    return ANSWERS[kind].format(name=facts.name, company=facts.company, opens=facts.opens,
                                closes=facts.closes, daytime=daytime, item=item, price=facts.prices.get(item))


def exchange(facts, rng, split="train", kind=None):
    """One turn each: (kind, item or None, what the user says, what the agent answers)."""
    kind = kind or rng.choice(KINDS)
    item = None
    if kind == "price":
        item = rng.choice(list(facts.prices))
    elif kind == "unknown" and rng.random() < 0.5:
        item = unknown_item(facts, rng)
    return kind, item, question(kind, rng, split, item), answer(kind, facts, item)


@cache
def vocabulary():
    """Every word anyone can say, sorted."""
    texts = [*ITEMS, *COMPANIES, *NAMES, *PRICES, *OPENS, *CLOSES, *VOICE_SENTENCES, "afternoon evening"]
    texts += [*ANSWERS.values(), *ROLES, *HOURS, "costs dollars"]
    texts += [text for sides in QUESTIONS.values() for side in sides for text in side]
    return sorted({word for text in texts for word in text.split() if "{" not in word})


def text_corpus(n, seed=0):
    """`n` lines of the train split for a tokenizer: role texts, questions, answers and voice sentences."""
    rng = Random(seed)
    lines = list(VOICE_SENTENCES)
    while len(lines) < n:
        facts = make_facts(rng)
        lines += [role_text(facts, rng), *exchange(facts, rng)[2:]]
    return lines[:n]
