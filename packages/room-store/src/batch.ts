/** A question, and whoever waits for its answer. */
interface Asked<Q, A> {
  readonly question: Q;
  readonly resolve: (answer: A) => void;
  readonly reject: (error: unknown) => void;
  readonly timer: NodeJS.Timeout;
  /** Has given up. */
  isOver: boolean;
}

export interface BatchOptions {
  /** Whoever has no answer by then gets an error. */
  readonly deadlineMs: number;
}

/** Most questions of one batch. */
const maxBatch = 200;
const maxUnderWay = 3;
/** A batch that is out for this long may be on a connection that hangs: a healthy database takes a few milliseconds. */
const slowAfterMs = 200;

/**
 * Gathers concurrent questions, to be answered by one call of `answer`, in its order. A question only ever joins a
 * batch that has *not been sent*: one that is under way may rest on an older snapshot than the question. Each batch
 * waits for the one before it, since two at once would be half as large, and cost almost twice as much; but not for a
 * slow one. A question that is answered with undefined is asked again, behind those who wait.
 */
export const createBatcher = <Q, A>(
  answer: (questions: readonly Q[]) => Promise<readonly (A | undefined)[]>,
  { deadlineMs }: BatchOptions,
): ((question: Q) => Promise<A>) => {
  type Batch = readonly Asked<Q, A>[];
  let unsent: Asked<Q, A>[] = [];
  const underWay = new Set<Batch>();
  let awaited: Batch | undefined;

  const pump = (): void => {
    if (awaited !== undefined || underWay.size === maxUnderWay) return;
    const open = unsent.filter(({ isOver }) => !isOver);
    unsent = open.slice(maxBatch);
    if (open.length > 0) void send(open.slice(0, maxBatch));
  };

  const goOnWithout = (batch: Batch): void => {
    if (awaited === batch) awaited = undefined;
    pump();
  };

  const end = (batch: Batch): void => {
    underWay.delete(batch);
    goOnWithout(batch);
  };

  const send = async (batch: Batch): Promise<void> => {
    underWay.add(batch);
    awaited = batch;
    const slow = setTimeout(goOnWithout, slowAfterMs, batch);
    // By then all who asked have given up, though the query may hang for longer.
    const hanging = setTimeout(end, deadlineMs, batch);
    try {
      const answers = await answer(batch.map(({ question }) => question));
      for (const [at, asked] of batch.entries()) {
        const found = answers[at];
        if (found === undefined) {
          unsent.push(asked);
          continue;
        }
        clearTimeout(asked.timer);
        asked.resolve(found);
      }
    } catch (error) {
      for (const { timer, reject } of batch) {
        clearTimeout(timer);
        reject(error);
      }
    }
    clearTimeout(slow);
    clearTimeout(hanging);
    end(batch);
  };

  return (question) => {
    const { promise, resolve, reject } = Promise.withResolvers<A>();
    const giveUp = (): void => {
      asked.isOver = true;
      reject(new Error(`The store did not answer within ${deadlineMs} ms`));
    };
    const asked = { question, resolve, reject, timer: setTimeout(giveUp, deadlineMs), isOver: false };
    // After this turn's other requests have been read from their sockets.
    if (unsent.length === 0) setImmediate(pump);
    unsent.push(asked);
    return promise;
  };
};
