/**
 * `text` as a pattern of LIKE that stands for itself alone: callers add `%` before or behind it, and `ESCAPE '\'` after the pattern. LIKE tells
 * letters' case apart on both databases. To compare without case, put both sides in lower case: `LOWER(column) LIKE pattern`, with
 * the pattern of `text.toLowerCase()`. SQLite's LOWER knows every alphabet here; PostgreSQL's those of the database's locale.
 */
export const likePattern = (text: string): string => text.replace(/[\\%_]/g, String.raw`\$&`);
