/** What lists in memory and in the database have in common; store/records.ts has the same in SQL. */
type ListCondition = {
  readonly column: string;
  readonly comparison: "equals" | "contains" | "startswith" | "endswith" | "lt" | "lte" | "gt" | "gte" | "neq";
  readonly ignoresCase?: boolean;
  readonly value: string | number | null;
};

type Query = {
  readonly conditions: readonly ListCondition[];
  readonly sortColumn: string;
  readonly descending: boolean;
  readonly limit: number;
  readonly marker: string | undefined;
};

type Value = string | number | null;

const compare = (left: Value, right: Value): number => {
  if (left === right) return 0;
  if (left === null) return -1;
  if (right === null) return 1;
  return left < right ? -1 : 1;
};

const holds = ({ comparison, ignoresCase, value }: ListCondition, found: Value): boolean => {
  if (value === null) return (found === null) === (comparison !== "neq");
  // As in SQL: what is not known is neither equal to anything nor different from it.
  if (found === null) return false;
  const lower = (given: string | number): string | number =>
    ignoresCase === true && typeof given === "string" ? given.toLowerCase() : given;
  const [left, right] = [lower(found), lower(value)];
  switch (comparison) {
    case "equals":
      return left === right;
    case "neq":
      return left !== right;
    case "contains":
      return String(left).includes(String(right));
    case "startswith":
      return String(left).startsWith(String(right));
    case "endswith":
      return String(left).endsWith(String(right));
    case "lt":
      return compare(left, right) < 0;
    case "lte":
      return compare(left, right) <= 0;
    case "gt":
      return compare(left, right) > 0;
    case "gte":
      return compare(left, right) >= 0;
  }
};

/** The part of `items` that `query` asks for, in its order. `column`: what an item has there; a column that it has not is null. */
export const listPart = <Item extends { readonly id: string }>(
  items: readonly Item[],
  query: Query,
  column: (item: Item, name: string) => Value,
): Item[] => {
  const { conditions, sortColumn, descending, marker, limit } = query;
  const order = (left: Item, right: Item): number => {
    const bySort = compare(column(left, sortColumn), column(right, sortColumn)) || compare(left.id, right.id);
    return descending ? -bySort : bySort;
  };
  const fitting = items.filter((item) =>
    conditions.every((condition) => holds(condition, column(item, condition.column))),
  );
  if (marker === undefined) return fitting.toSorted(order).slice(0, limit);
  const marked = items.find(({ id }) => id === marker);
  if (marked === undefined) return [];
  return fitting
    .filter((item) => order(item, marked) > 0)
    .toSorted(order)
    .slice(0, limit);
};
