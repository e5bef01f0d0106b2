// Versions of one model at the end of its name: `-latest`, `-2024-08-06`, `-20250514`, `-0613`, `-001`, `@20240620`, `-05-20`.
const version = /[-@:](?:latest|\d{4}-\d{2}-\d{2}|\d{2}-\d{2}|\d{8}|\d{6}|\d{4}|\d{3})$/

/** The name of a target's model if neither its options nor its layer name it. */
export const unknownModel = "unknown"

/** The family of a model, by which providers limit: its name in lower case, without versions at the end. */
export const familyOf = (model: string): string => {
  let family = model.toLowerCase()
  for (let shorter = family.replace(version, ""); shorter !== family; shorter = family.replace(version, "")) {
    if (shorter === "") break
    family = shorter
  }
  return family
}
