/** Questions that are answered together, and the answers in their order. */
interface Batch<Q, A> {
  readonly questions: Q[];
  readonly answers: PromiseWithResolvers<readonly A[]>;
}

export interface BatchOptions {
  /** Whoever has no answer by then gets an error. */
  readonly deadlineMs: number;
}

/** Most questions of one batch. */
const maxBatch = 200;
/**
 * Gathers concurrent questions, to be answered by one call of `answer`, in its order. A question only ever joins a batch
 * that has *not been sent*: one that is under way may rest on an older snapshot than the question. One batch is under
 * way at a time: two would be half as large, and cost almost twice as much.
 */
export const createBatcher = <Q, A>(
  answer: (questions: readonly Q[]) => Promise<readonly A[]>,
  { deadlineMs }: BatchOptions,
): ((question: Q) => Promise<A>) => {
  const unsent: Batch<Q, A>[] = [];
  let isUnderWay = false;

  const send = async ({ questions, answers }: Batch<Q, A>): Promise<void> => {
    isUnderWay = true;
    answer(questions).then(answers.resolve, answers.reject);
    // Not the query: a connection that hangs must not hold up those who come later.
    await answers.promise.catch(() => {});
    isUnderWay = false;
    pump();
  };

  const pump = (): void => {
    const batch = isUnderWay ? undefined : unsent.shift();
    if (batch !== undefined) void send(batch);
  };

  const openBatch = (): Batch<Q, A> => {
    const batch: Batch<Q, A> = { questions: [], answers: Promise.withResolvers() };
    const giveUp = (): void => {
      const at = unsent.indexOf(batch);
      if (at >= 0) unsent.splice(at, 1);
      batch.answers.reject(new Error(`The store did not answer within ${deadlineMs} ms`));
    };
    const timer = setTimeout(giveUp, deadlineMs);
    const disarm = (): void => clearTimeout(timer);
    batch.answers.promise.then(disarm, disarm);
    unsent.push(batch);
    // After this turn's other requests have been read from their sockets.
    setImmediate(pump);
    return batch;
  };

  return (question) => {
    const last = unsent.at(-1);
    const batch = last !== undefined && last.questions.length < maxBatch ? last : openBatch();
    const at = batch.questions.push(question) - 1;
    return batch.answers.promise.then((answers) => answers[at] as A);
  };
};
