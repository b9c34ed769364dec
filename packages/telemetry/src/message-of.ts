/**
 * What an error says. One about a name with several addresses says nothing by itself, but holds an error for each of
 * them.
 */
export const messageOf = (error: Error): string =>
  error.message === '' && error instanceof AggregateError
    ? error.errors.map((each: Error) => each.message).join('; ')
    : error.message;
