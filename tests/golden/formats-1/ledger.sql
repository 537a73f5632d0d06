BEGIN TRANSACTION;
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('0004');
CREATE TABLE events (
	id INTEGER NOT NULL, 
	model VARCHAR(64) NOT NULL, 
	sequence INTEGER NOT NULL, 
	release INTEGER NOT NULL, 
	kind VARCHAR(32) NOT NULL, 
	cause VARCHAR(64) NOT NULL, 
	reason TEXT NOT NULL, 
	at VARCHAR(40) NOT NULL, "instead" INTEGER, 
	PRIMARY KEY (id), 
	UNIQUE (model, sequence)
);
INSERT INTO "events" VALUES(1,'golden',1,1,'released','person','a golden fixture','2026-12-01T16:13:28+00:00',NULL);
INSERT INTO "events" VALUES(2,'golden',2,2,'released','person','its package is not kept','2026-12-01T16:13:28+00:00',1);
CREATE TABLE looks (
	id INTEGER NOT NULL, 
	model VARCHAR(64) NOT NULL, 
	release INTEGER, 
	at VARCHAR(40) NOT NULL, 
	found JSON NOT NULL, 
	PRIMARY KEY (id)
);
CREATE TABLE releases (
	id INTEGER NOT NULL, 
	model VARCHAR(64) NOT NULL, 
	number INTEGER NOT NULL, 
	bento VARCHAR(200) NOT NULL, 
	digests JSON NOT NULL, 
	verdict JSON NOT NULL, 
	evaluation JSON NOT NULL, 
	trial JSON NOT NULL, 
	answers JSON NOT NULL, 
	cause VARCHAR(64) NOT NULL, 
	reason TEXT NOT NULL, 
	created VARCHAR(40) NOT NULL, 
	replaced INTEGER, canary JSON, 
	PRIMARY KEY (id), 
	UNIQUE (model, number)
);
INSERT INTO "releases" VALUES(1,'golden',1,'golden:91539fe93700c8ba','{"snapshot": "01f30f3eb8bd9dce905503982106651813248daa61a7780a218cb75343d6e3b8", "spec": "39b4d3886a0d982a73b3ffdff6e1745838922383d8bde6361dddec1bce484d6c", "verdict": "5317a48cd03ab53e566a92760c4db28e89c94331502c2ed294825e83f7ed74db", "code": "8fcf27d6dadcc2ce1b3f761fd12e8fe280595f572f2143b3b5273cd655561da2", "package": "e88530fd64c4608b2cc061a8908621c36938e674f51822a266b2ebdb93a3989d", "serving": "66682e8e66631f74bd0f5ce26fb3d822d5e1ee262fba797a0e0dfd6d8bc4f832", "artifact": "91539fe93700c8ba2fa1c244d6e26efe9eaea3ab2ad9ff69c0b71007db424fca", "bento": "f0d48a8f8ea8a7e0113a5eb3bdc2e3f5f5c0a1509456f7ca3160dee378b1ab7c"}','{"passed": true, "checks": [{"passed": true, "sentence": "rmse 0.1755 is at most the threshold 1, on 19 held-out rows"}, {"passed": true, "sentence": "better than always guessing: rmse 0.1755 against 6.328, difference -6.152, 95% interval -7.512 to -4.687"}], "reasons": ["rmse 0.1755 is at most the threshold 1, on 19 held-out rows", "better than always guessing: rmse 0.1755 against 6.328, difference -6.152, 95% interval -7.512 to -4.687"]}','{"metric": "rmse", "greater_is_better": false, "rows": 19, "challenger": {"rmse": 0.17547083164674093, "mae": 0.15414245036915217, "median_ae": 0.14953492094858234, "mape": 0.01114007994377135, "rmsle": 0.012126181025732678, "r2": 0.9990851424980697}, "baseline": {"rmse": 6.327915442787398, "mae": 5.488832725377802, "median_ae": 5.953564356435642, "mape": 0.44392143768411213, "rmsle": 0.4408402272938394, "r2": -0.18977521963934696}, "against_baseline": {"difference": -6.152444611140657, "low": -7.512412247571765, "high": -4.687013955347705, "confidence": 0.95}, "champion": null, "champion_release": null, "against_champion": null, "incomparable": null, "slices": [], "value": null}','{"passed": true, "problems": [], "answers": 84, "start_seconds": 1.22, "milliseconds": {"p50": 0.77, "p95": 1.01, "max": 1.06}}','{"by": "plan", "why": null, "proof": {"passed": true, "rows": 2406, "unanswered": 50, "wrong": 0, "problems": []}}','person','a golden fixture','2026-12-01T16:13:23+00:00',NULL,'null');
INSERT INTO "releases" VALUES(2,'golden',2,'golden:25eaaeccb11f6136','{"snapshot": "2de3ec92a6ae5538af97609ad22942e1aa704fb0226788d031bf1c5249aa98bc", "spec": "9c0b88c7c65058862805752a2418f949ab843d2d240be14319744456b2f482a6", "verdict": "d388051afed233f67b402f141beb00d7cd045932f8305001ee761c6fff4082a3", "code": "cd9414613993fb492f752da7fae68b91d18872a2a477465a73ef1609a20af439", "package": "dae9efb0e765145cda00d722ba09c7b1f5c9ead4f495998e93e87362e5251813", "serving": "c1229b81862c6c4bef26d0d3ab810bb078cc9614fdeb7eab01148ca8a2f6b3e7", "artifact": "25eaaeccb11f6136e7d347641ed77cf4e779505c95c60e325bb1cd014664a861", "bento": "cad76c3f61fa6a1f9e232bd20b12a070e64d632fc9bfcca8af7213f4b1631324"}','{"passed": true, "checks": [{"passed": true, "sentence": "rmse 0.1755 is at most the threshold 1, on 19 held-out rows"}, {"passed": true, "sentence": "better than always guessing: rmse 0.1755 against 6.328, difference -6.152, 95% interval -7.512 to -4.687"}], "reasons": ["rmse 0.1755 is at most the threshold 1, on 19 held-out rows", "better than always guessing: rmse 0.1755 against 6.328, difference -6.152, 95% interval -7.512 to -4.687"]}','{"metric": "rmse", "greater_is_better": false, "rows": 19, "challenger": {"rmse": 0.17547083164674093, "mae": 0.15414245036915217, "median_ae": 0.14953492094858234, "mape": 0.01114007994377135, "rmsle": 0.012126181025732678, "r2": 0.9990851424980697}, "baseline": {"rmse": 6.327915442787398, "mae": 5.488832725377802, "median_ae": 5.953564356435642, "mape": 0.44392143768411213, "rmsle": 0.4408402272938394, "r2": -0.18977521963934696}, "against_baseline": {"difference": -6.152444611140657, "low": -7.512412247571765, "high": -4.687013955347705, "confidence": 0.95}, "champion": null, "champion_release": null, "against_champion": null, "incomparable": null, "slices": [], "value": null}','{"passed": true, "problems": [], "answers": 84, "start_seconds": 1.22, "milliseconds": {"p50": 0.77, "p95": 1.01, "max": 1.06}}','{"by": "plan", "why": null, "proof": {"passed": true, "rows": 2406, "unanswered": 50, "wrong": 0, "problems": []}}','person','its package is not kept','2026-12-01T16:13:23+00:00',1,'null');
CREATE TABLE runs (
	id INTEGER NOT NULL, 
	model VARCHAR(64) NOT NULL, 
	outcome VARCHAR(32) NOT NULL, 
	cause VARCHAR(64) NOT NULL, 
	reasons JSON NOT NULL, 
	digests JSON NOT NULL, 
	release INTEGER, 
	started VARCHAR(40) NOT NULL, 
	seconds JSON NOT NULL, why TEXT, 
	PRIMARY KEY (id)
);
CREATE TABLE served (
	id INTEGER NOT NULL, 
	model VARCHAR(64) NOT NULL, 
	server VARCHAR(200) NOT NULL, 
	release INTEGER NOT NULL, 
	kind VARCHAR(32) NOT NULL, 
	reason TEXT NOT NULL, 
	at VARCHAR(40) NOT NULL, 
	PRIMARY KEY (id)
);
CREATE TABLE servers (
	model VARCHAR(64) NOT NULL, 
	server VARCHAR(200) NOT NULL, 
	release INTEGER, 
	state VARCHAR(32) NOT NULL, 
	reason TEXT NOT NULL, 
	seen INTEGER NOT NULL, 
	PRIMARY KEY (model, server)
);
CREATE INDEX ix_runs_model ON runs (model);
CREATE INDEX ix_served_model ON served (model);
CREATE INDEX ix_looks_model ON looks (model);
COMMIT;
