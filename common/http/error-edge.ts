/** What the HTTP edge itself refuses, whatever the service. */
export type HttpErrorCode =
  | "bad-request"
  | "body-too-large"
  | "not-found"
  | "method-not-allowed"
  | "not-implemented"
  | "internal-error";

/** A failure on its way out: the status is decided, the shape is the service's. */
export type HttpProblem = {
  readonly status: number;
  readonly code: string;
  readonly message: string;
  readonly fields: Readonly<Record<string, unknown>>;
};

/**
 * How a service's errors look to its clients. `status` is exhaustive over the codes that the service throws, so that a
 * new code without a status does not compile. A code that is not in it is a programmer's error and answers 500.
 */
export type ErrorEdge<Code extends string = string> = {
  readonly status: Readonly<Record<Code | HttpErrorCode, number>>;
  /** The body, in the exact shape that the service's clients parse, and headers such as WWW-Authenticate. */
  answer(
    problem: HttpProblem,
    origin: string | undefined,
  ): { headers?: Readonly<Record<string, string>>; body: object };
};
