"""The things of the pocket world: which picture of the emoji set carries which everyday name, and English forms."""

# ruff: noqa: E501 - the tables read better with one entry a line

from __future__ import annotations

import unicodedata

# category -> entries "Unicode name=everyday name" (or just the name); several pictures may share one everyday name
_TABLE: dict[str, str] = {
    "fruit": (
        "grapes; melon; watermelon; tangerine=orange; lemon; banana; pineapple; red apple=apple; green apple=apple; pear; "
        "peach; cherries=cherry; strawberry; coconut; mango; kiwifruit=kiwi; blueberries=blueberry; olive"
    ),
    "vegetable": (
        "tomato; aubergine; hot pepper=chilli; ear of maize=corn; mushroom; avocado; cucumber; potato; carrot; broccoli; "
        "leafy green=lettuce; garlic; onion; bell pepper; roasted sweet potato=sweet potato; chestnut; peanuts=peanut; "
        "beans"
    ),
    "food": (
        "hamburger; slice of pizza=pizza; hot dog; taco; burrito; bread; french fries; spaghetti; sushi; rice ball; "
        "fried shrimp=shrimp; soft ice cream=ice cream; ice cream; doughnut; cookie; chocolate bar; candy; lollipop; custard; "
        "honey pot; shortcake=cake; birthday cake; bento box=lunch box; popcorn; cooking=fried egg; green salad=salad; egg; "
        "bacon; croissant; baguette bread=baguette; pancakes=pancake; dumpling; fortune cookie; pie; pretzel; "
        "cut of meat=steak; meat on bone=meat; poultry leg=chicken leg; sandwich; canned food=can; bagel; cheese wedge=cheese; "
        "cupcake; salt shaker; butter; waffle; falafel"
    ),
    "drink": (
        "teacup without handle=cup of tea; wine glass=glass of wine; cocktail glass=cocktail; "
        "beer mug=beer; baby bottle; bottle with popping cork=champagne bottle; glass of milk; hot beverage=cup of coffee; "
        "teapot; bubble tea; beverage box=juice box; ice cube"
    ),
    "animal": (
        "rat; mouse; mouse face=mouse; ox; cow; cow face=cow; tiger; tiger face=tiger; leopard; rabbit; rabbit face=rabbit; "
        "cat; cat face=cat; crocodile; whale; spouting whale=whale; snail; snake; horse; horse face=horse; goat; "
        "sheep; monkey; monkey face=monkey; rooster; chicken; dog; dog face=dog; pig; pig face=pig; boar; elephant; "
        "octopus; ant; honeybee=bee; lady beetle=ladybird; fish; tropical fish; blowfish; turtle; baby chick=chick; "
        "hatching chick=chick; bird; penguin; koala; poodle; dromedary camel=camel; bactrian camel=camel; dolphin; "
        "frog face=frog; hamster face=hamster; wolf face=wolf; bear face=bear; panda face=panda; chipmunk=squirrel; spider; "
        "crab; lion face=lion; scorpion; turkey; unicorn face=unicorn; eagle; duck; bat; shark; owl; fox face=fox; butterfly; "
        "deer; gorilla; lizard; rhinoceros=rhino; shrimp; squid; giraffe face=giraffe; zebra face=zebra; hedgehog; "
        "t-rex=dinosaur; sauropod=dinosaur; kangaroo; llama; peacock; hippopotamus=hippo; parrot; raccoon; lobster; mosquito; "
        "badger; swan; mammoth; sloth; otter; skunk; flamingo; beaver; bison; seal; dragon; fly; worm; beetle; bug=caterpillar"
    ),
    "plant": (
        "evergreen tree=fir tree; deciduous tree=tree; palm tree; cactus; tulip; rose; hibiscus; sunflower; maple leaf; "
        "four leaf clover; potted plant; bouquet; christmas tree; lotus"
    ),
    "vehicle": (
        "rocket; helicopter; steam locomotive=locomotive; tram; bus; ambulance; fire engine; police car; taxi; automobile=car; "
        "delivery truck=truck; tractor; ship; speedboat; bicycle; motor scooter=scooter; small airplane=plane; "
        "airplane=plane; canoe; sled; flying saucer; skateboard; pickup truck; racing car; racing motorcycle=motorcycle; "
        "sailboat; parachute; roller skate"
    ),
    "object": (
        "key; lock; bell; hammer; wrench; axe; carpentry saw=saw; screwdriver; ladder; hook; bucket; broom; basket; "
        "toothbrush; bar of soap=soap; sponge; closed umbrella=umbrella; umbrella with rain drops=umbrella; "
        "umbrella; balloon; kite; wrapped present=present; teddy bear; jigsaw puzzle piece=puzzle piece; magnet; "
        "electric light bulb=light bulb; candle; electric torch=torch; battery; electric plug=plug; camera; television; radio; "
        "telephone receiver=telephone; mobile phone; personal computer=laptop; printer; keyboard; desktop computer=computer; "
        "three button mouse=computer mouse; watch; alarm clock; hourglass; black scissors=scissors; pencil; "
        "lower left paintbrush=paintbrush; lower left crayon=crayon; straight ruler=ruler; closed book=book; green book=book; "
        "blue book=book; orange book=book; open book; newspaper; envelope; package=box; "
        "pushpin; linked paperclips=paper clip; microscope; telescope; "
        "left-pointing magnifying glass=magnifying glass; crystal ball; syringe; pill; stethoscope; thermometer; "
        "fire extinguisher; toolbox; brick; chair; bed; door; window; mirror; toilet; bathtub; shower; shopping trolley; "
        "money bag; coin; credit card; gem stone; ring; crown; anchor; compass; world map=map; wastebasket=bin; "
        "fork and knife; spoon; tumbler glass=glass of water; hocho=knife; jar; chopsticks; safety pin; "
        "ball of yarn; spool of thread; razor; luggage=suitcase; briefcase; bomb; shield; gear; chains=chain; "
        "trophy; nesting dolls; magic wand; yo-yo; boomerang; wood; rock; bone; tooth; feather; spiral shell=shell"
    ),
    "clothing": (
        "top hat; eyeglasses; dark sunglasses=sunglasses; goggles; necktie; t-shirt; jeans; dress; handbag; mans shoe=shoe; "
        "athletic shoe=sneaker; high-heeled shoe; womans boots=boot; hiking boot; billed cap=cap; scarf; gloves=glove; coat; "
        "socks=sock; shorts; school satchel=backpack; lipstick; ribbon; thong sandal=sandal"
    ),
    "sport and music": (
        "soccer ball=football; basketball and hoop=basketball; volleyball; tennis racquet and ball=tennis racket; baseball; "
        "boxing glove; bow and arrow; game die=die; guitar; trumpet; violin; saxophone; accordion; banjo; "
        "drum with drumsticks=drum; microphone; headphone=headphones; musical keyboard=piano; sports medal=medal; curling stone"
    ),
    "place and sky": (
        "snow capped mountain=mountain; volcano; house building=house; house with garden=house; european castle=castle; "
        "church; factory; tent; fountain; ferris wheel; crescent moon=moon; full moon symbol=full moon; "
        "black sun with rays=sun; sun with face=sun; white medium star=star; glowing star=star; cloud; rainbow; snowflake; "
        "high voltage sign=lightning bolt; fire; droplet=drop of water; snowman; snowman without snow=snowman; water wave=wave; "
        "ringed planet=planet; earth globe europe-africa=globe; earth globe americas=globe; earth globe asia-australia=globe; "
        "desert island=island; hut"
    ),
    "person and fantasy": (
        "ghost; robot face=robot; extraterrestrial alien=alien; skull; clown face=clown; jack-o-lantern=pumpkin; "
        "father christmas=father christmas; baby; pile of poo=pile of poo; eye; ear; nose; mouth; foot; leg; brain; "
        "raised hand=hand; flexed biceps=arm; heavy black heart=heart; blue heart=heart; green heart=heart; "
        "yellow heart=heart; purple heart=heart; orange heart=heart; black heart=heart; white heart=heart; brown heart=heart; "
        "black chess pawn=chess pawn"
    ),
}


# names that are already plural or come in pairs: "these are", never "a"
PLURAL_ONLY = frozenset(
    {"french fries", "jeans", "scissors", "eyeglasses", "sunglasses", "goggles", "shorts", "chopsticks", "headphones",
     "grapes", "nesting dolls", "beans"}
)  # fmt: skip
# names without an article in the singular
MASS = frozenset(
    {
        "bread", "spaghetti", "sushi", "popcorn", "bacon", "meat", "cheese", "butter", "garlic", "corn", "broccoli", "lettuce",
        "salad", "soap", "bubble tea", "candy", "fire", "wood", "father christmas", "beer", "custard", "falafel",
    }
)  # fmt: skip
_IRREGULAR = {
    "mouse": "mice", "computer mouse": "computer mice", "sheep": "sheep", "fish": "fish", "tropical fish": "tropical fish",
    "blowfish": "blowfish", "deer": "deer", "bison": "bison", "ox": "oxen", "wolf": "wolves", "knife": "knives",
    "maple leaf": "maple leaves", "four leaf clover": "four leaf clovers", "foot": "feet", "tooth": "teeth", "die": "dice",
    "cup of tea": "cups of tea", "glass of wine": "glasses of wine", "cup of coffee": "cups of coffee",
    "glass of milk": "glasses of milk", "glass of water": "glasses of water", "drop of water": "drops of water",
    "ball of yarn": "balls of yarn", "spool of thread": "spools of thread", "pile of poo": "piles of poo",
    "potato": "potatoes", "sweet potato": "sweet potatoes", "tomato": "tomatoes", "shrimp": "shrimps", "squid": "squids",
    "mango": "mangos", "fork and knife": "forks and knives", "bow and arrow": "bows and arrows", "hippo": "hippos",
    "mosquito": "mosquitoes", "volcano": "volcanoes",
}  # fmt: skip


def picture_names() -> dict[str, str]:
    """Unicode name of a picture (as in the emoji set's ``names.json``) -> everyday name."""
    pairs: dict[str, str] = {}
    for entries in _TABLE.values():
        for entry in entries.split(";"):
            unicode_name, _, everyday = entry.strip().partition("=")
            pairs[unicode_name] = everyday or unicode_name
    return pairs


def categories() -> dict[str, str]:
    """Everyday name -> category."""
    return {
        (entry.strip().partition("=")[2] or entry.strip()): category
        for category, entries in _TABLE.items()
        for entry in entries.split(";")
    }


def with_article(name: str) -> str:
    """``an apple``, ``a dog``, ``scissors``, ``bread``."""
    if name in PLURAL_ONLY or name in MASS:
        return name
    an = name[0] in "aeiou" and not name.startswith(("unicorn", "one"))
    return f"{'an' if an or name.startswith('hourglass') else 'a'} {name}"


def plural(name: str) -> str:
    """``apples``, ``mice``, ``glasses of wine``; names that have no other plural stay as they are."""
    if name in PLURAL_ONLY or name in MASS:
        return name
    if name in _IRREGULAR:
        return _IRREGULAR[name]
    if name.endswith(("s", "x", "z", "ch", "sh")):
        return name + "es"
    if name.endswith("y") and name[-2] not in "aeiou":
        return name[:-1] + "ies"
    return name + "s"


def character_of(unicode_name: str) -> str | None:
    """The character that Unicode calls so, if it is a single one."""
    try:
        return unicodedata.lookup(unicode_name.upper())
    except KeyError:
        return None
