/** The entities of a text as they are written there, without duplicates, in the order of their first mention. */
export interface Entities {
  readonly amounts: ReadonlyArray<string>
  readonly dates: ReadonlyArray<string>
  readonly emails: ReadonlyArray<string>
  readonly orders: ReadonlyArray<string>
}

/** Finds amounts of money, dates, e-mail addresses and order numbers. */
export const entitiesOf = (text: string): Entities => ({
  amounts: allOf(text, amount),
  dates: allOf(text, date, isDate),
  emails: allOf(text, email),
  orders: ordersOf(text)
})

// Matching takes linear time: every quantifier below is bounded, or repeats a class that cannot start the next part.

const allOf = (
  text: string,
  pattern: RegExp,
  accept: (found: string) => boolean = () => true
): ReadonlyArray<string> => [
  ...new Set(Array.from(text.matchAll(pattern), ([found]) => found).filter(accept))
]

const mailbox = String.raw`(?<![\p{L}\p{N}._%+-])[\p{L}\p{N}_%+][\p{L}\p{N}._%+-]{0,63}`
const host = String.raw`(?:[\p{L}\p{N}-]{1,63}\.){1,8}\p{L}{2,24}(?![\p{L}\p{N}@])`
const email = new RegExp(`${mailbox}@${host}`, "gu")

const figure = String.raw`\d{1,3}(?:[.,'’\u00a0\u202f ]\d{3}){1,4}(?:[.,]\d{1,2})?(?!\d)|\d{1,12}(?:[.,]\d{1,2})?(?!\d)`
const spelled =
  "(?:one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|fifteen|twenty|thirty|forty|fifty|sixty|seventy|" +
  "eighty|ninety|hundred|thousand)"
const sign = String.raw`(?:\b(?:US|CA|AU|NZ|HK|A|C|S|R))?\$|[€£¥₹₩₽₺₪₴₫฿]`
const code =
  "EUR|USD|GBP|CHF|JPY|CNY|INR|CAD|AUD|NZD|SGD|HKD|SEK|NOK|DKK|ISK|PLN|CZK|HUF|RON|BGN|TRY|ZAR|BRL|MXN|KRW|ILS|AED|SAR"
const unit =
  "euros?|(?:US |Canadian |Australian )?dollars?|pounds?(?: sterling)?|francs?|kron(?:er|or|a|e)|crowns?|zloty|yen|" +
  "yuan|rupees?|cents?|pence|bucks|quid"
const magnitude = String.raw`(?: ?(?:k|m|bn|million|billion|thousand)\b)?`

const amount = new RegExp(
  String.raw`(?:${sign}|\b(?:${code}))[ \u00a0]?(?:${figure})${magnitude}` +
    String.raw`|(?<![\w.,])(?:${figure})${magnitude}[ \u00a0]?(?:[€£$¥₹₩₽₺₪₴₫฿]|(?:${code}|${unit})\b)` +
    String.raw`|\b${spelled}(?:[ -](?:and )?${spelled}){0,5} (?:${unit})\b`,
  "giu"
)

const month = "January|February|March|April|May|June|July|August|September|October|November|December|" +
  "Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sept?|Oct|Nov|Dec"
const dayFigure = String.raw`(?:0?[1-9]|[12]\d|3[01])`
const day = String.raw`${dayFigure}(?:st|nd|rd|th)?\b`
const year = String.raw`(?:19|20)\d\d\b`

const date = new RegExp(
  [
    String.raw`(?<![\w-])${year}([-/.])(?:0?[1-9]|1[0-2])\1${dayFigure}(?!\d)`,
    String.raw`(?<![\w./-])${dayFigure}([-/.])${dayFigure}\2${year}(?![/-]|\.\d)`,
    String.raw`(?<![\w./-])${dayFigure}/${dayFigure}/\d\d(?![\w/-]|\.\d)`,
    String.raw`(?<![\w.,])${day}(?: of)? (?:${month})\b(?:\.?,? ${year})?`,
    String.raw`\b(?:${month})\.? (?:the )?${day}(?!:\d)(?:,? ${year})?`
  ].join("|"),
  "giu"
)

// In lower case "may" is usually the verb.
const isDate = (found: string): boolean => !found.startsWith("may ")

const subject =
  "orders?|bookings?|reservations?|ref|reference|invoices?|tickets?|case|confirmation|agreement|contract|policy|" +
  "purchase|shipment|tracking|parcel|PNR|claim|complaint|subscription"
const filler = "number|numbers|no|nr|num|code|id|ref|reference|is|was|under|says|slip|and"

const order = new RegExp(
  [
    String.raw`(?<![\w-])[A-Z]{2,5}-\d[\dA-Z]{1,15}(?:-[\dA-Z]{1,15}){0,3}(?![\w-])`,
    String.raw`(?<![\w&])#[A-Z]{0,4}-?\d{3,15}(?:-\d{1,10}){0,2}(?!\w)`,
    String.raw`(?<![\w-])(?=\d*[A-Z]+\d)(?=[A-Z]*\d+[A-Z])[A-Z\d]{6}(?![\w-])`,
    String.raw`\b(?:${subject})\b(?:[ .:(,]{1,2}(?:${filler})\b){0,3}[ .:(,]{1,3}` +
    String.raw`(?<code>(?=[A-Z]{0,12}\d)[A-Z\d]{5,20}(?![\w-])|\d{4,15}(?:-\d{1,10}){0,2}(?![\w-]))`
  ].join("|"),
  "giu"
)

const ordersOf = (text: string): ReadonlyArray<string> => [
  ...new Set(Array.from(text.matchAll(order), (match) => match.groups?.["code"] ?? match[0]).filter(isOrder))
]

// An order number is in capitals. Years, days and names of standards are excluded.
const isOrder = (found: string): boolean =>
  found === found.toUpperCase() && (found.startsWith("#") || found.replace(/\D/g, "").length >= 2) &&
  !/^(?:(?:19|20)\d\d(?:-\d\d?){0,2}|(?:ISO|IEC|DIN|EN|UTF|HTTP|RFC|COVID)-.*)$/.test(found)
