"""Lists of English words that all splits print: goods, months, days and common words."""

from __future__ import annotations

COMMON = (  # noqa: SIM905
    "the of and to a in is for on that with as are this be by or from at was it not have you an we which "
    "can all will has more their your our its one if may other any than these been when there each who "
    "into only two such some time use first new also between after must should over most where both under "
    "while about during through before every same order report office letter account service price date "
    "number page name work day year week month part group state form line list note table value rate "
    "level test case plan cost tax market result change point side country city house water road school "
    "team music paper field power money family health member public private annual final total local main "
    "open early late high low long short small large general given made used known found set sent paid "
    "please thank dear regards receipt payment delivery customer product quality amount balance credit "
    "due item"
).split()
ITEMS = (  # noqa: SIM905
    "Apple Bread Candle Desk Engine Flour Glove Hammer Ink Jacket Kettle Lamp Mirror Nail Oil Paper Quilt "
    "Rope Soap Table Umbrella Vase Wheel Yarn Zipper Brush Chair Drill Fan Guitar Hose Iron Jar Knife "
    "Ladder Mat Needle Oven Pump Ring Saw Tile Urn Valve Wire Basket Clock Door Easel Flag Coffee Tea "
    "Milk Rice Butter Cheese Honey Salt Sugar Pepper"
).split()
MONTHS = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()  # noqa: SIM905
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
