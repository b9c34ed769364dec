import { expect, test } from 'vitest';
import { createDuty } from './duties.ts';

test('a duty is given back once nobody is keeping it any more, whatever became of that', async () => {
  const answers = [Promise.withResolvers<boolean>(), Promise.withResolvers<boolean>()];
  const asked = answers.map(({ promise }) => promise).values();
  let isGivenBack = false;
  const duty = createDuty(
    async () => asked.next().value ?? false,
    async () => {
      isGivenBack = true;
    },
  );
  const held = Promise.allSettled([duty.hold(), duty.hold()]);
  const released = duty.release();
  answers[0]?.resolve(true);
  await new Promise((resolve) => setImmediate(resolve));
  expect(isGivenBack).toBe(false);
  answers[1]?.reject(new Error('the database is away'));
  await released;
  expect(isGivenBack).toBe(true);
  expect(await held).toMatchObject([{ value: true }, { reason: { message: 'the database is away' } }]);
});
