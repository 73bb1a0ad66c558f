"""What the demo shop sells, as data: 20 leaf categories of five product types, 32 brands, and which purchase tends to follow which.

Nothing here is drawn at random and no brand is meant to be a real one; `generator.py` combines brands, variants and products.
"""

from __future__ import annotations

from typing import NamedTuple


class Brand(NamedTuple):
    """A brand and its price tier: 1 (budget) to 3 (premium)."""

    name: str
    tier: int


class Product(NamedTuple):
    """A product type: its name as in a title, four variants put before it, and what it does (first sentence of a description)."""

    name: str
    variants: tuple[str, str, str, str]
    benefit: str
    bought_again: bool = False
    """Whether people buy the same one again (coffee beans, say)."""


class Category(NamedTuple):
    """A leaf category: path from the root, what its things are used for, and its product types, those bought first in front."""

    path: tuple[str, ...]
    uses: tuple[str, str, str]
    products: tuple[Product, ...]


BRANDS: dict[str, tuple[Brand, ...]] = {
    "Outdoor": (Brand("Northfell", 3), Brand("Pine Ridge", 2), Brand("Blue Heron", 2), Brand("Trailhand", 1)),
    "Kitchen": (
        Brand("Casa Moro", 3),
        Brand("Hearthstone", 2),
        Brand("Copper Lane", 2),
        Brand("Daily Good", 1),
    ),
    "Garden": (
        Brand("Greenhollow", 3),
        Brand("Fern & Field", 2),
        Brand("Meadowlark", 2),
        Brand("Plotwise", 1),
    ),
    "Home": (Brand("Oakhaven", 3), Brand("Brightside", 2), Brand("Millbrook", 2), Brand("Handy Fox", 1)),
    "Photography": (
        Brand("Halden Optics", 3),
        Brand("Clearview", 2),
        Brand("Silver Frame", 2),
        Brand("Snapwise", 1),
    ),
    "Music": (Brand("Larkspur", 3), Brand("Red Barn", 2), Brand("Bell & Reed", 2), Brand("First Chord", 1)),
    "Crafts": (
        Brand("Atelier Blanc", 3),
        Brand("Wren & Co", 2),
        Brand("Studio North", 2),
        Brand("Crafty Days", 1),
    ),
    "Fitness": (
        Brand("Still Water", 3),
        Brand("Ever Active", 2),
        Brand("Balance Lab", 2),
        Brand("Movewell", 1),
    ),
}

CATEGORIES: tuple[Category, ...] = (
    Category(
        ("Outdoor", "Camping", "Tents & Sleeping"),
        ("weekend trips", "summer festivals", "long treks in changeable weather"),
        (
            Product(
                "Backpacking Tent",
                ("2-Person", "Ultralight 1-Person", "4-Season", "3-Person"),
                "Pitches in five minutes and keeps wind and rain outside",
            ),
            Product(
                "Sleeping Bag",
                ("Down", "3-Season", "Summer", "Winter Mummy"),
                "Keeps you warm through cold nights and packs down small",
            ),
            Product(
                "Sleeping Mat",
                ("Self-Inflating", "Ultralight Air", "Foam", "Insulated"),
                "Takes the stones and the cold out of the ground under you",
            ),
            Product(
                "Family Tent",
                ("4-Person", "6-Person", "Air Beam", "Tunnel"),
                "Room to stand up in, with a separate bedroom and a porch",
            ),
            Product(
                "Camping Pillow",
                ("Inflatable", "Memory Foam", "Compact", "Down-Filled"),
                "A real pillow that rolls up to the size of a fist",
            ),
        ),
    ),
    Category(
        ("Outdoor", "Camping", "Camp Kitchen"),
        ("cooking at the campsite", "long days on the trail", "picnics and van trips"),
        (
            Product(
                "Camp Stove",
                ("Two-Burner", "Compact Gas", "Alcohol", "Windproof"),
                "Boils a litre of water in under four minutes",
            ),
            Product(
                "Camping Cook Set",
                ("Titanium", "Nonstick", "2-Person", "Stainless"),
                "Pots, pan and lid that nest into each other",
            ),
            Product(
                "Water Filter",
                ("Squeeze", "Pump", "Gravity", "Bottle-Top"),
                "Makes stream and lake water safe to drink",
            ),
            Product(
                "Cooler Box",
                ("25-Litre", "45-Litre", "Wheeled", "Electric"),
                "Keeps food and drinks cold for two days",
            ),
            Product(
                "Insulated Flask",
                ("500 ml", "1-Litre", "Wide-Mouth", "Steel"),
                "Keeps tea hot for twelve hours",
            ),
        ),
    ),
    Category(
        ("Outdoor", "Hiking", "Hiking Gear"),
        ("day hikes", "steep mountain paths", "wet autumn walks"),
        (
            Product(
                "Hiking Boots",
                ("Waterproof", "Leather", "Lightweight", "Wide-Fit"),
                "Firm ankles and a sole that grips on wet rock",
            ),
            Product(
                "Hiking Socks",
                ("Merino", "Cushioned", "Liner", "Knee-High"),
                "Dry quickly and prevent blisters",
                True,
            ),
            Product(
                "Trekking Poles",
                ("Carbon", "Folding", "Aluminium", "Cork-Grip"),
                "Take the weight off your knees on the way down",
            ),
            Product(
                "Hiking Daypack",
                ("20-Litre", "30-Litre", "Ventilated", "Women's"),
                "Sits close to the back and has room for a day's kit",
            ),
            Product(
                "Headlamp",
                ("Rechargeable", "Waterproof", "300-Lumen", "Red-Light"),
                "Lights the path and leaves both hands free",
            ),
        ),
    ),
    Category(
        ("Kitchen", "Coffee & Tea", "Coffee"),
        ("the first cup of the morning", "espresso lovers", "guests who stay for coffee"),
        (
            Product(
                "Espresso Machine",
                ("Manual", "15-Bar", "Compact", "Dual-Boiler"),
                "Real espresso with a thick crema at home",
            ),
            Product(
                "Coffee Grinder",
                ("Conical Burr", "Hand", "Quiet Electric", "Espresso"),
                "Grinds evenly from fine espresso to coarse French press",
            ),
            Product(
                "Espresso Beans",
                ("Dark Roast", "Medium Roast", "Organic", "Decaf"),
                "Freshly roasted whole beans with notes of cocoa and nuts",
                True,
            ),
            Product(
                "Milk Frothing Pitcher",
                ("350 ml", "600 ml", "Latte Art", "Steel"),
                "A narrow spout for cappuccino foam and latte art",
            ),
            Product(
                "Espresso Cups",
                ("Porcelain", "Double-Wall Glass", "Stoneware", "Set of 6"),
                "Thick walls that keep a small coffee hot",
            ),
        ),
    ),
    Category(
        ("Kitchen", "Baking", "Bread Baking"),
        ("sourdough at home", "Sunday baking", "crusty country loaves"),
        (
            Product(
                "Stand Mixer",
                ("5-Litre", "Compact", "Heavy-Duty", "Retro"),
                "Kneads heavy dough without walking across the worktop",
            ),
            Product(
                "Bread Flour",
                ("Strong White", "Wholemeal", "Rye", "Organic Spelt"),
                "Stone-ground flour with plenty of gluten for a good rise",
                True,
            ),
            Product(
                "Proofing Basket",
                ("Round", "Oval", "Rattan", "Lined"),
                "Gives sourdough its shape and its rings",
            ),
            Product(
                "Dutch Oven",
                ("Cast Iron", "Enamelled", "5-Quart", "Oval"),
                "Holds the steam so that the crust bursts open",
            ),
            Product(
                "Bread Knife",
                ("Serrated", "10-Inch", "Offset", "Olive Wood"),
                "Cuts crust without crushing the crumb",
            ),
        ),
    ),
    Category(
        ("Garden", "Growing", "Vegetable Garden"),
        ("growing your own vegetables", "small gardens and balconies", "the first spring sowing"),
        (
            Product(
                "Raised Garden Bed",
                ("Cedar", "Galvanised", "Tall", "Modular"),
                "A warm, deep bed that saves your back",
            ),
            Product(
                "Potting Soil",
                ("Peat-Free", "Vegetable", "20-Litre", "Organic"),
                "Loose soil with compost that feeds plants for six weeks",
                True,
            ),
            Product(
                "Tomato Seeds",
                ("Cherry", "Beefsteak", "Heirloom", "Early"),
                "Sweet fruit from July until the first frost",
            ),
            Product(
                "Watering Can",
                ("10-Litre", "Copper", "Long-Reach", "Indoor"),
                "A fine rose that does not wash seedlings away",
            ),
            Product(
                "Plant Supports",
                ("Bamboo", "Spiral", "Steel", "Trellis"),
                "Hold tomatoes and beans upright in the wind",
            ),
        ),
    ),
    Category(
        ("Photography", "Cameras", "Camera Equipment"),
        ("travel photography", "portraits and family pictures", "landscapes at dawn"),
        (
            Product(
                "Mirrorless Camera",
                ("24 MP", "Full-Frame", "Compact", "4K"),
                "Fast autofocus and clean pictures in low light",
            ),
            Product(
                "Camera Lens",
                ("50 mm Prime", "Wide-Angle", "Telephoto", "Macro"),
                "Sharp to the corners, with a soft background",
            ),
            Product(
                "Memory Card",
                ("64 GB", "128 GB", "High-Speed", "256 GB"),
                "Fast enough for bursts and 4K video",
            ),
            Product(
                "Camera Tripod",
                ("Carbon", "Travel", "Tall", "Tabletop"),
                "Stands still for long exposures and folds to 40 cm",
            ),
            Product(
                "Camera Bag",
                ("Shoulder", "Backpack", "Waterproof", "Sling"),
                "Padded compartments for a body and three lenses",
            ),
        ),
    ),
    Category(
        ("Music", "Guitars", "Acoustic Guitar"),
        ("beginners", "songwriters", "playing around the campfire"),
        (
            Product(
                "Acoustic Guitar",
                ("Dreadnought", "Parlor", "3/4-Size", "Cutaway"),
                "A spruce top with a warm, full sound",
            ),
            Product(
                "Guitar Tuner",
                ("Clip-On", "Pedal", "Chromatic", "Soundhole"),
                "Shows every note on a bright display, even on stage",
            ),
            Product(
                "Guitar Strings",
                ("Phosphor Bronze", "Light Gauge", "Coated", "Silk & Steel"),
                "Bright tone that lasts for months",
                True,
            ),
            Product(
                "Guitar Capo",
                ("Spring", "Screw", "Partial", "Steel"),
                "Changes key in a second and stays in tune",
            ),
            Product(
                "Guitar Stand",
                ("Folding", "Wall-Mount", "Wooden", "A-Frame"),
                "Keeps a guitar safe and within reach",
            ),
        ),
    ),
    Category(
        ("Fitness", "Yoga", "Yoga & Stretching"),
        ("yoga at home", "morning stretches", "recovery after running"),
        (
            Product(
                "Yoga Mat",
                ("Non-Slip", "Cork", "Extra-Thick", "Travel"),
                "Grips hands and feet and cushions the knees",
            ),
            Product(
                "Yoga Blocks",
                ("Cork", "Foam", "Bamboo", "Lightweight"),
                "Bring the floor closer in standing poses",
            ),
            Product(
                "Yoga Strap",
                ("Cotton", "8-Foot", "Stretch", "D-Ring"),
                "Helps to reach further without strain",
            ),
            Product(
                "Foam Roller", ("Firm", "Soft", "Vibrating", "Textured"), "Loosens tight calves and backs"
            ),
            Product(
                "Meditation Cushion",
                ("Buckwheat", "Round", "Velvet", "Crescent"),
                "Tilts the hips so that you can sit still for longer",
            ),
        ),
    ),
    Category(
        ("Home", "Workshop", "Power Tools"),
        ("shelves and furniture", "repairs around the house", "the home workshop"),
        (
            Product(
                "Cordless Drill",
                ("18 V", "Compact 12 V", "Hammer", "Brushless"),
                "Drives long screws and drills into masonry",
            ),
            Product(
                "Drill Bit Set",
                ("Wood", "Masonry", "Titanium", "50-Piece"),
                "Sharp bits for wood, metal and brick in a sorted case",
            ),
            Product(
                "Screw Assortment",
                ("500-Piece", "Wood", "Stainless", "Wall Plug"),
                "Every common size in a box with a label",
                True,
            ),
            Product(
                "Circular Saw",
                ("Cordless", "Mini", "1400 W", "Plunge"),
                "Straight cuts through boards and worktops",
            ),
            Product(
                "Workbench",
                ("Folding", "Beech", "Height-Adjustable", "Steel"),
                "Holds the work still while you saw and sand",
            ),
        ),
    ),
    Category(
        ("Crafts", "Painting", "Watercolour"),
        ("painting outdoors", "evening classes", "flowers and landscapes"),
        (
            Product(
                "Watercolour Paint Set",
                ("24-Colour", "Travel", "Artist", "12-Colour"),
                "Bright pigments that mix cleanly",
            ),
            Product(
                "Watercolour Paper",
                ("Cold-Pressed", "Hot-Pressed", "A4", "Cotton"),
                "Heavy paper that stays flat when it is wet",
                True,
            ),
            Product(
                "Paint Brush Set",
                ("Round", "Sable", "Synthetic", "10-Piece"),
                "Fine points that hold plenty of water",
            ),
            Product(
                "Painting Easel",
                ("Tabletop", "Field", "Beech", "Folding"),
                "Stands firm and tilts to any angle",
            ),
            Product(
                "Sketchbook",
                ("A5", "Hardcover", "Spiral", "Toned"),
                "Smooth sheets for pencil and light washes",
                True,
            ),
        ),
    ),
    Category(
        ("Outdoor", "Cycling", "Bike Accessories"),
        ("the daily commute", "touring by bike", "winter riding"),
        (
            Product(
                "Bike Helmet",
                ("Commuter", "Road", "Mountain", "Kids'"),
                "Light, well ventilated and quick to adjust",
            ),
            Product(
                "Bike Lights",
                ("Rechargeable", "Front & Rear", "800-Lumen", "Dynamo"),
                "Be seen from 500 metres away",
            ),
            Product(
                "Bike Lock",
                ("Folding", "Heavy-Duty", "Chain", "Cable"),
                "Hardened steel that resists bolt cutters",
            ),
            Product(
                "Bike Pump",
                ("Floor", "Mini", "Digital", "High-Pressure"),
                "Fits every valve and shows the pressure",
            ),
            Product(
                "Pannier Bag",
                ("Waterproof", "20-Litre", "Commuter", "Roll-Top"),
                "Clicks onto the rack and keeps a laptop dry",
            ),
        ),
    ),
    Category(
        ("Kitchen", "Cooking", "Knives & Pans"),
        ("everyday cooking", "people who love to cook", "a first kitchen"),
        (
            Product(
                "Cast Iron Skillet",
                ("10-Inch", "12-Inch", "Pre-Seasoned", "Grill"),
                "Sears steak and bakes cornbread, on any hob",
            ),
            Product(
                "Chef's Knife",
                ("8-Inch", "Damascus", "Forged", "Santoku"),
                "A thin, hard edge that glides through onions",
            ),
            Product(
                "Cutting Board",
                ("Walnut", "End-Grain", "Bamboo", "Juice-Groove"),
                "Kind to knife edges and heavy enough not to slip",
            ),
            Product(
                "Whetstone",
                ("1000/6000 Grit", "Diamond", "Ceramic", "Starter"),
                "Brings a dull knife back to razor sharpness",
            ),
            Product(
                "Saucepan Set",
                ("3-Piece", "Copper-Core", "Stainless", "Nonstick"),
                "Heats evenly right up to the rim",
            ),
        ),
    ),
    Category(
        ("Garden", "Lawn", "Lawn Care"),
        ("a thick green lawn", "family gardens", "dry summers"),
        (
            Product(
                "Lawn Mower",
                ("Cordless", "Robot", "Push Reel", "Self-Propelled"),
                "Cuts evenly and collects the clippings",
            ),
            Product(
                "Lawn Fertiliser",
                ("Spring", "Autumn", "Organic", "Slow-Release"),
                "Feeds the grass for three months without burning it",
                True,
            ),
            Product(
                "Grass Seed",
                ("Shade", "Hard-Wearing", "Drought-Proof", "Fast-Growing"),
                "Fills bare patches within two weeks",
                True,
            ),
            Product(
                "Garden Hose",
                ("30 m", "Expandable", "Kink-Free", "Soaker"),
                "Stays flexible and does not kink",
            ),
            Product(
                "Lawn Sprinkler",
                ("Oscillating", "Rotary", "Timer", "Quiet"),
                "Waters up to 200 square metres evenly",
            ),
        ),
    ),
    Category(
        ("Crafts", "Yarn", "Knitting"),
        ("jumpers and scarves", "quiet evenings", "baby blankets"),
        (
            Product(
                "Knitting Needles",
                ("Bamboo", "Circular", "Interchangeable", "Steel"),
                "Smooth tips that never snag the yarn",
            ),
            Product(
                "Knitting Yarn",
                ("Merino", "Alpaca", "Cotton", "Chunky"),
                "Soft yarn that keeps its shape in the wash",
                True,
            ),
            Product(
                "Stitch Markers", ("Locking", "Ring", "Brass", "100-Piece"), "Keep count of rows and repeats"
            ),
            Product(
                "Knitting Pattern Book",
                ("Beginner", "Nordic", "Sock", "Cable"),
                "Thirty patterns with clear charts and photographs",
            ),
            Product(
                "Blocking Mats",
                ("Foam", "Set of 9", "Grid", "Wool"),
                "Give finished pieces their final shape",
            ),
        ),
    ),
    Category(
        ("Home", "Bedroom", "Bedding"),
        ("a good night's sleep", "guest rooms", "warm sleepers"),
        (
            Product(
                "Mattress Topper",
                ("Memory Foam", "Latex", "Cooling", "7 cm"),
                "Turns a hard bed into a comfortable one",
            ),
            Product("Duvet", ("Goose Down", "All-Season", "Summer", "Wool"), "Warm without being heavy"),
            Product(
                "Duvet Cover Set",
                ("Linen", "Cotton Percale", "Flannel", "Striped"),
                "Gets softer with every wash",
            ),
            Product(
                "Bed Pillow",
                ("Side-Sleeper", "Down", "Cooling Gel", "Orthopaedic"),
                "Supports the neck and keeps its loft",
            ),
            Product(
                "Fitted Sheet",
                ("Jersey", "Sateen", "Organic Cotton", "Deep-Pocket"),
                "Stays on the mattress all night",
            ),
        ),
    ),
    Category(
        ("Garden", "Wildlife", "Bird Feeding"),
        ("watching birds from the window", "cold winters", "wildlife gardens"),
        (
            Product(
                "Bird Feeder",
                ("Squirrel-Proof", "Window", "Hanging", "Seed"),
                "Brings finches and tits close to the window",
            ),
            Product(
                "Wild Bird Seed",
                ("Sunflower", "No-Mess", "Winter", "5 kg"),
                "A rich mix that leaves no husks on the lawn",
                True,
            ),
            Product("Nest Box", ("Cedar", "Robin", "Camera", "Swift"), "A dry, safe place to raise a brood"),
            Product(
                "Bird Bath",
                ("Stone", "Heated", "Hanging", "Solar"),
                "Clean water to drink and bathe in all year",
            ),
            Product(
                "Birdwatching Binoculars",
                ("8x42", "10x42", "Compact", "Waterproof"),
                "Bright and steady, with a wide field of view",
            ),
        ),
    ),
    Category(
        ("Home", "Decorating", "Painting & Decorating"),
        ("a fresh living room", "moving house", "weekend decorating"),
        (
            Product(
                "Wall Paint",
                ("Matt White", "Washable", "Sage Green", "Low-Odour"),
                "Covers in one coat and wipes clean",
            ),
            Product(
                "Paint Roller Set",
                ("Microfibre", "9-Piece", "Foam", "Extendable"),
                "An even coat without drips or streaks",
            ),
            Product(
                "Masking Tape",
                ("Delicate", "Sharp-Edge", "Outdoor", "6-Pack"),
                "Clean lines, and it comes off without tearing",
                True,
            ),
            Product(
                "Dust Sheet",
                ("Cotton", "Plastic", "Extra-Large", "Absorbent"),
                "Keeps paint off floors and furniture",
            ),
            Product(
                "Wall Filler",
                ("Fine", "Fast-Drying", "Lightweight", "Deep"),
                "Fills cracks and holes and sands smooth",
            ),
        ),
    ),
    Category(
        ("Outdoor", "Water Sports", "Paddling"),
        ("calm lakes", "river tours", "summer holidays by the sea"),
        (
            Product(
                "Paddle Board",
                ("Inflatable", "Touring", "Beginner", "Kids'"),
                "Stable enough to stand on from the first day",
            ),
            Product(
                "Paddle",
                ("Carbon", "3-Piece", "Kayak", "Adjustable"),
                "Light in the hand and stiff in the water",
            ),
            Product(
                "Life Jacket",
                ("Kayak", "Inflatable", "Kids'", "Slim-Fit"),
                "Keeps you afloat and leaves your arms free",
            ),
            Product(
                "Dry Bag",
                ("10-Litre", "20-Litre", "Backpack", "Phone"),
                "Rolls shut and keeps everything dry",
            ),
            Product(
                "Water Shoes",
                ("Quick-Dry", "Neoprene", "Barefoot", "Closed-Toe"),
                "Protect feet from stones and shells",
            ),
        ),
    ),
    Category(
        ("Kitchen", "Coffee & Tea", "Tea"),
        ("slow afternoons", "green tea drinkers", "a gift for tea lovers"),
        (
            Product(
                "Electric Kettle",
                ("Gooseneck", "Variable-Temperature", "Glass", "Quiet"),
                "Stops at the exact temperature that the tea needs",
            ),
            Product(
                "Teapot",
                ("Cast Iron", "Glass", "Porcelain", "Infuser"),
                "Pours without a drip and keeps tea warm",
            ),
            Product(
                "Loose Leaf Tea",
                ("Sencha Green", "Earl Grey", "Darjeeling", "Jasmine"),
                "Whole leaves from a single garden",
                True,
            ),
            Product(
                "Tea Infuser", ("Basket", "Ball", "Travel", "Fine-Mesh"), "Leaves room for the leaves to open"
            ),
            Product(
                "Tea Mugs",
                ("Stoneware", "Double-Wall Glass", "Lidded", "Set of 4"),
                "Hold a generous half litre",
            ),
        ),
    ),
)

CHAINS: tuple[tuple[str, ...], ...] = (
    (
        "Backpacking Tent",
        "Sleeping Bag",
        "Sleeping Mat",
        "Headlamp",
        "Camp Stove",
        "Camping Cook Set",
        "Water Filter",
    ),
    ("Family Tent", "Camping Pillow", "Cooler Box", "Insulated Flask"),
    ("Hiking Boots", "Hiking Socks", "Trekking Poles", "Hiking Daypack", "Headlamp"),
    ("Bike Helmet", "Bike Lights", "Bike Lock", "Bike Pump", "Pannier Bag"),
    ("Paddle Board", "Paddle", "Life Jacket", "Dry Bag", "Water Shoes"),
    ("Espresso Machine", "Coffee Grinder", "Espresso Beans", "Milk Frothing Pitcher", "Espresso Cups"),
    ("Electric Kettle", "Teapot", "Loose Leaf Tea", "Tea Infuser", "Tea Mugs"),
    ("Stand Mixer", "Bread Flour", "Proofing Basket", "Dutch Oven", "Bread Knife"),
    ("Cast Iron Skillet", "Chef's Knife", "Cutting Board", "Whetstone", "Saucepan Set"),
    ("Raised Garden Bed", "Potting Soil", "Tomato Seeds", "Watering Can", "Plant Supports"),
    ("Lawn Mower", "Lawn Fertiliser", "Grass Seed", "Garden Hose", "Lawn Sprinkler"),
    ("Bird Feeder", "Wild Bird Seed", "Nest Box", "Bird Bath", "Birdwatching Binoculars"),
    ("Cordless Drill", "Drill Bit Set", "Screw Assortment", "Circular Saw", "Workbench"),
    ("Wall Filler", "Masking Tape", "Dust Sheet", "Paint Roller Set", "Wall Paint"),
    ("Mattress Topper", "Duvet", "Duvet Cover Set", "Bed Pillow", "Fitted Sheet"),
    ("Mirrorless Camera", "Memory Card", "Camera Bag", "Camera Lens", "Camera Tripod"),
    ("Acoustic Guitar", "Guitar Tuner", "Guitar Strings", "Guitar Capo", "Guitar Stand"),
    ("Watercolour Paint Set", "Watercolour Paper", "Paint Brush Set", "Painting Easel", "Sketchbook"),
    ("Knitting Needles", "Knitting Yarn", "Stitch Markers", "Knitting Pattern Book", "Blocking Mats"),
    ("Yoga Mat", "Yoga Blocks", "Yoga Strap", "Foam Roller", "Meditation Cushion"),
)
"""What tends to be bought after what: product types in the order people buy them."""


def successors() -> dict[str, tuple[str, ...]]:
    """Return, for every product type that leads to others, the types that tend to be bought right after it."""
    following: dict[str, list[str]] = {}
    for chain in CHAINS:
        for first, second in zip(chain, chain[1:], strict=False):
            following.setdefault(first, []).append(second)
    return {name: tuple(names) for name, names in following.items()}
