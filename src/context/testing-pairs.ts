/** Texts, and questions with the same meaning and few common words. Written for these tests. Test only. */
export const PAIRS: readonly (readonly [text: string, question: string])[] = [
  [
    "The sourdough starter must be fed with flour and water every day until bubbles show that the wild yeast is active.",
    "keeping a natural leaven alive for baking bread",
  ],
  [
    "Invoices are payable within thirty days; late settlement incurs interest of two percent a month.",
    "what happens if a customer doesn't pay the bill on time",
  ],
  [
    "PostgreSQL replication slots keep write-ahead log segments until the standby has consumed them.",
    "why does the database server's disk fill up when a replica is offline",
  ],
  [
    "The glacier retreated three kilometres in a century as summers became warmer.",
    "effects of climate change on ice in the mountains",
  ],
  [
    "Our puppy needs vaccinations against distemper and parvovirus at eight weeks of age.",
    "shots a young dog should get",
  ],
  [
    "Employees accrue twenty-five days of paid leave a year, which must be taken before March.",
    "how much vacation do staff receive",
  ],
  [
    "The violin's soundpost transmits vibrations from the top plate to the back of the instrument.",
    "how string instruments carry sound through their bodies",
  ],
  [
    "To reset the password, open account settings, choose security and request a recovery email.",
    "I forgot my login credentials and cannot sign in",
  ],
  [
    "Photosynthesis converts carbon dioxide and light into sugars within the chloroplast.",
    "how plants make food from the sun",
  ],
  [
    "The train from Lyon arrives at platform four with a delay of twenty minutes.",
    "late railway service from a French city",
  ],
  [
    "A mortgage with a fixed rate protects the borrower from rises in the central bank's base rate.",
    "home loan whose cost stays the same",
  ],
  [
    "Garbage collection pauses were cut by moving large buffers off the managed heap.",
    "reducing memory-related latency in a running program",
  ],
  [
    "The knee surgery repairs a torn ligament using a graft from the hamstring tendon.",
    "operation for an injured leg joint of an athlete",
  ],
  [
    "Bees communicate the direction of nectar to the hive with a waggle dance.",
    "insects telling each other where flowers are",
  ],
  [
    "The treaty ended the war and redrew the frontier along the river.",
    "peace agreement that changed national borders",
  ],
  [
    "Tomatoes should be planted in rich soil after the last frost and watered at the roots.",
    "when to put vegetable seedlings in the garden",
  ],
  [
    "TLS certificates are renewed automatically by a cron job sixty days after issue.",
    "stop https from expiring on the web server",
  ],
  [
    "The orchestra will perform Mahler's fifth symphony in the restored concert hall.",
    "classical music event in a renovated venue",
  ],
  [
    "Children under five travel free of charge on buses accompanied by an adult.",
    "do toddlers need a ticket for public transport",
  ],
  [
    "The fuel pump failed, so the engine stalled on the motorway.",
    "car broke down because no petrol reached the motor",
  ],
  [
    "Merge conflicts arise when two branches edit the same lines of a file.",
    "git cannot combine my changes with a colleague's",
  ],
  ["Insulin lowers blood glucose by letting cells absorb sugar.", "hormone that diabetics are missing"],
  [
    "The lighthouse keeper recorded every ship that passed during the storm.",
    "log of vessels seen from the coast in bad weather",
  ],
  [
    "Quarterly revenue grew by twelve percent on strong sales of cloud subscriptions.",
    "company earnings went up thanks to hosted software",
  ],
  ["A vegan diet excludes meat, eggs and dairy products.", "eating no food that comes from animals"],
  [
    "The judge dismissed the lawsuit because the statute of limitations had expired.",
    "court threw out the case as it was filed too late",
  ],
  [
    "Solar panels on the roof feed surplus electricity into the grid at noon.",
    "selling home-generated power to the utility",
  ],
  [
    "The novel follows an orphan who becomes a blacksmith's apprentice in Victorian London.",
    "story of a parentless boy in nineteenth century England",
  ],
  ["Index your columns that appear in join conditions to avoid full table scans.", "make slow SQL queries faster"],
  [
    "The volcano's eruption covered the villages in ash and closed the airport.",
    "flights cancelled owing to a mountain spewing lava",
  ],
  ["Wear a helmet and reflective clothing when cycling after dark.", "safety gear for riding a bike at night"],
  ["Interviews are scored on communication, problem solving and system design.", "how job candidates are assessed"],
  [
    "The printer shows a paper jam although the tray is empty.",
    "office device for hard copies reports something stuck inside",
  ],
  ["Migrating geese fly in a V formation to save energy.", "why birds travel together in a wedge shape"],
  [
    "Container images are scanned for known vulnerabilities before deployment.",
    "security checks of docker builds ahead of release",
  ],
  ["The museum displays bronze tools and pottery from a prehistoric settlement.", "ancient artefacts exhibition"],
  ["Please return library books within three weeks or ask for an extension.", "how long can I borrow reading material"],
  [
    "Regular swimming strengthens the heart and is gentle on the joints.",
    "low-impact exercise good for cardiovascular health",
  ],
  ["The spacecraft entered orbit around Mars after a seven month journey.", "probe reached the red planet"],
  ["Telephone support is available on weekdays from nine to five.", "opening hours of the customer helpline"],
];
