package container

// The words of generated names: how a rock can look, and what rock, water and
// time make of each other.
var (
	adjectives = [...]string{
		"ancient", "banded", "basal", "bedded", "blue", "bold", "bright", "brittle", "broad", "calm", "chalky", "clear",
		"coarse", "cobbled", "cool", "coral", "crisp", "curved", "dark", "deep", "dense", "distant", "dry", "dusky",
		"early", "earthy", "eastern", "faint", "fine", "firm", "flat", "folded", "fossil", "fresh", "frosty", "gentle",
		"glassy", "golden", "grainy", "grand", "green", "hard", "hidden", "high", "hollow", "humble", "icy", "jagged",
		"keen", "lasting", "late", "layered", "level", "light", "little", "lofty", "long", "lucid", "mellow", "mild",
		"misty", "mossy", "narrow", "noble", "northern", "old", "open", "pale", "patient", "pebbly", "plain", "polished",
		"proud", "pure", "quiet", "rapid", "red", "rough", "round", "rugged", "sandy", "serene", "shallow", "sharp",
		"silent", "silky", "silver", "slow", "smooth", "soft", "solid", "southern", "stable", "steady", "steep", "still",
		"stony", "stout", "sturdy", "sunny", "tall", "thin", "tidal", "tilted", "tranquil", "upper", "vast", "veined",
		"warm", "western", "white", "wide", "wild", "windy", "wise", "young",
	}
	nouns = [...]string{
		"agate", "amber", "arch", "arroyo", "ash", "atoll", "bank", "barrow", "basalt", "basin", "bay", "beach", "bed",
		"bluff", "boulder", "breccia", "brook", "butte", "cairn", "canyon", "cape", "cave", "chalk", "chert", "clay",
		"cliff", "coast", "cobble", "col", "coral", "cove", "crag", "crater", "creek", "crest", "crystal", "dale", "delta",
		"dike", "dolomite", "drift", "dune", "earth", "esker", "fault", "feldspar", "fen", "fjord", "flint", "fold",
		"ford", "fossil", "garnet", "geode", "geyser", "glacier", "glen", "gneiss", "gorge", "granite", "gravel", "grotto",
		"gully", "gypsum", "headland", "hill", "hollow", "islet", "jasper", "karst", "kettle", "knoll", "lagoon", "lake",
		"lava", "ledge", "limestone", "loam", "loess", "magma", "malachite", "mantle", "marble", "marl", "marsh", "mesa",
		"mica", "moraine", "mudstone", "obsidian", "olivine", "onyx", "opal", "outcrop", "oxbow", "pass", "peak", "pebble",
		"plain", "plateau", "pumice", "quarry", "quartz", "ravine", "reef", "ridge", "rill", "river", "sand", "sandstone",
		"schist", "scree", "shale", "shingle", "shoal", "shore", "silt", "slate", "slope", "spring", "spur", "stone",
		"strand", "strata", "stream", "summit", "talus", "tarn", "terrace", "topaz", "tor", "trench", "tuff", "tundra",
		"vale", "valley", "vein", "wadi", "zircon",
	}
)
