import { type Browser, chromium, type Locator, type Page } from 'playwright-core';
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest';
import {
  newStartEnvironment,
  type RunningStart,
  removeStartEnvironment,
  runStart,
  type StartEnvironment,
} from '../../test/run-start.ts';
import { chromiumFlags } from '../chromium.ts';
import { describeWith } from '../vitest.ts';

describeWith(['livekit', 'chromium'], 'the demo page', ({ chromium: { executablePath } }) => {
  let env: StartEnvironment;
  let start: RunningStart;
  let browser: Browser;

  beforeAll(async () => {
    env = await newStartEnvironment();
    start = runStart(env);
    [browser] = await Promise.all([chromium.launch({ executablePath, args: [...chromiumFlags] }), start.ready]);
  });

  afterAll(async () => {
    await browser?.close();
    start?.child.kill('SIGINT');
    await start?.exitCode;
    await removeStartEnvironment(env);
  });

  beforeEach(async () => {
    for (const context of browser.contexts()) await context.close();
  });

  async function open(name: string): Promise<Page> {
    const page = await (await browser.newContext()).newPage();
    page.setDefaultTimeout(15_000);
    await page.goto(`http://127.0.0.1:${env.DEMO_PORT}/`);
    await page.getByLabel('Who').selectOption(name);
    return page;
  }

  async function enter(name: string): Promise<Page> {
    const page = await open(name);
    await page.getByRole('button', { name: 'Join' }).click();
    return page;
  }

  test('shows ann and bob to each other until ann removes bob, and again when she lets him back in', async () => {
    const [ann, bob] = await Promise.all([enter('ann'), enter('bob')]);
    await Promise.all([seesMoving(ann, 'Bob'), seesMoving(bob, 'Ann')]);
    await expectText(tile(ann, 'Bob'), 'speaker');
    expect(await bob.getByRole('button', { name: 'Remove' }).count()).toBe(0);

    await memberRow(ann, 'bob').getByRole('button', { name: 'Remove' }).click();
    await expectText(message(bob), 'You were removed from the room.');
    await tile(ann, 'Bob').waitFor({ state: 'detached' });
    await expectText(message(ann), 'Bob was out of the call after');

    await bob.getByRole('button', { name: 'Join' }).click();
    await expectText(message(bob), 'There is no such room for you.');

    await memberRow(ann, 'bob').getByRole('button', { name: 'Let back in' }).click();
    await expectText(message(ann), 'Bob may join now.');
    await bob.getByRole('button', { name: 'Join' }).click();
    await Promise.all([seesMoving(ann, 'Bob'), seesMoving(bob, 'Ann')]);
  });

  test('tells dan that there is no such room for him', async () => {
    const dan = await enter('dan');
    await expectText(message(dan), 'There is no such room for you.');
    await dan.getByRole('button', { name: 'Join' }).waitFor();
  });

  test('lets a listener watch, and publishes nothing of hers', async () => {
    const [ann, cleo] = await Promise.all([enter('ann'), enter('cleo')]);
    await seesMoving(cleo, 'Ann');
    await tile(ann, 'Cleo').waitFor();
    expect(await tile(ann, 'Cleo').locator('video, audio').count()).toBe(0);
    expect(await cleo.getByRole('button', { name: /microphone|camera/ }).count()).toBe(0);
  });

  test('stops and starts the own camera, which the others see', async () => {
    const [ann, bob] = await Promise.all([enter('ann'), enter('bob')]);
    await seesMoving(ann, 'Bob');
    await bob.getByRole('button', { name: 'Stop camera' }).click();
    await tile(ann, 'Bob').locator('video').waitFor({ state: 'detached' });
    await bob.getByRole('button', { name: 'Mute microphone' }).click();
    await expectText(tile(ann, 'Bob'), 'muted');
    await bob.getByRole('button', { name: 'Start camera' }).click();
    await seesMoving(ann, 'Bob');
  });

  test('asks again while the service is not available', async () => {
    const ann = await open('ann');
    let refusals = 0;
    await ann.route('**/join', async (route) => {
      if (route.request().method() !== 'POST' || refusals === 2) return route.continue();
      refusals += 1;
      return route.fulfill({ status: 503, headers: { 'access-control-allow-origin': '*' } });
    });
    await ann.getByRole('button', { name: 'Join' }).click();
    await ann.locator('#state[data-state=connected]').waitFor();
    expect(refusals).toBe(2);
  });

  function tile(page: Page, name: string) {
    return page.locator('.tile').filter({ has: page.getByText(name, { exact: true }) });
  }

  function memberRow(page: Page, name: string) {
    return page.locator(`li[data-person=${name}]`);
  }

  function message(page: Page) {
    return page.locator('#message');
  }

  async function expectText(locator: Locator, text: string): Promise<void> {
    await locator.filter({ hasText: text }).waitFor();
  }

  /** Pictures arrive, one after the other. */
  async function seesMoving(page: Page, name: string): Promise<void> {
    const video = await tile(page, name).locator('video').elementHandle();
    const framesAfter = (count: number) =>
      page.waitForFunction(
        ([element, seen]) => {
          const { videoWidth, getVideoPlaybackQuality } = element as unknown as Video;
          const { totalVideoFrames } = getVideoPlaybackQuality.call(element);
          return videoWidth > 0 && totalVideoFrames > seen ? totalVideoFrames : undefined;
        },
        [video, count] as const,
        { polling: 50 },
      );
    const frames = await (await framesAfter(0)).jsonValue();
    await framesAfter((frames ?? 0) + 5);
  }
});

/** The part of the browser's HTMLVideoElement that is asked here. */
interface Video {
  readonly videoWidth: number;
  getVideoPlaybackQuality(this: unknown): { readonly totalVideoFrames: number };
}
