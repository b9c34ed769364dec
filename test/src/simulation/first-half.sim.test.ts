import { seedsHold } from './seeds-hold.ts';

seedsHold({ from: 1, count: 2500, steps: 200 });
