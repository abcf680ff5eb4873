/** Questions to the kernel: each has an id, ends once, and never waits for ever. */

/** Why a request gave nothing, as a sentence. */
export class RequestError extends Error {}

interface Pending<T> {
  resolve: (value: T) => void;
  reject: (reason: Error) => void;
}

export class Requests<T> {
  readonly #pending = new Map<string, Pending<T>>();
  readonly #prefix: string;
  #next = 1;

  /** @param prefix Makes the ids differ from those of other `Requests`. */
  constructor(prefix: string) {
    this.#prefix = prefix;
  }

  /**
   * Send a question and wait for its answer.
   *
   * @param send Sends it under the id that it is given; may throw.
   * @param timeout In milliseconds.
   * @param signal Gives up when aborted.
   * @throws RequestError (as rejection) with the kernel's reason, or after the timeout.
   */
  ask(send: (req: string) => void, timeout: number, signal?: AbortSignal): Promise<T> {
    const req = `${this.#prefix}${this.#next++}`;
    const { promise, resolve, reject } = Promise.withResolvers<T>();
    const timer = setTimeout(
      () => this.fail(req, `the kernel did not answer within ${timeout / 1000} s; it may be busy`),
      timeout,
    );
    const onAbort = () => this.fail(req, "given up");
    signal?.addEventListener("abort", onAbort, { once: true });
    this.#pending.set(req, { resolve, reject });
    try {
      send(req);
    } catch (error) {
      this.fail(req, error instanceof Error ? error.message : String(error));
    }
    return promise.finally(() => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", onAbort);
    });
  }

  /** Answer a question; false where nobody waits for it (any more). */
  settle(req: string, value: T): boolean {
    const pending = this.#take(req);
    pending?.resolve(value);
    return pending !== undefined;
  }

  /** Answer a question with a reason; false where nobody waits for it (any more). */
  fail(req: string, reason: string): boolean {
    const pending = this.#take(req);
    pending?.reject(new RequestError(reason));
    return pending !== undefined;
  }

  /** Fail all that is open. */
  close(reason: string): void {
    for (const req of [...this.#pending.keys()]) {
      this.fail(req, reason);
    }
  }

  #take(req: string): Pending<T> | undefined {
    const pending = this.#pending.get(req);
    this.#pending.delete(req);
    return pending;
  }
}
